"""CPython seen from outside: where the interpreter's structures lie in a process, and what they say.

`loaded` finds its images, `runtime` the one that is in use and what is known of it: `versions` holds the offsets of
each version, `debugoffsets` what an interpreter says of itself, `living` and `proof` prove both. `memory` reads the
process's memory, `objects` its strings and code objects, `linetable` turns instructions into lines, `modules` paths
into module names, `thread_names` finds the names of threads, `lock` whether there is an interpreter lock.

Nothing here stops or changes the process: it is read with process_vm_readv.
"""
