"""Native (C, C++, Rust) stacks of other processes, from a copy of a thread's registers and stack.

process.py says which file lies where in a process, image.py what a file holds, cfi.py how its functions lay out their
stack, unwind.py follows a stack with all that, demangle.py (with rust.py) makes names readable.
"""
