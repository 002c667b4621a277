"""CPython seen from outside: where the interpreter's structures lie in a process, and what they say.

`runtime` finds the interpreter in a process and settles its `Layout`; `layouts` holds the offsets of each version,
`elf` reads symbols, `memory` the process's memory, `objects` its strings and code objects, `linetable` turns
instructions into lines, `modules` paths into module names, `threads` finds the names of threads.

Nothing here stops or changes the process: it is read with process_vm_readv.
"""
