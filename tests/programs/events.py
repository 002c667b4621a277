"""Causes known numbers of events in known functions. Prints `ready`, waits for a line, does it, prints `done`.

Writes a byte 300 times in `write_often` and 100 bytes 50 times in `write_much`; touches 400 new pages in `touch_pages`.
"""

import mmap
import os
import sys

PAGES = 400


def write_often(sink):
    for _ in range(300):
        os.write(sink, b"x")


def write_much(sink):
    for _ in range(50):
        os.write(sink, b"x" * 100)


def touch_pages(memory):
    for page in range(PAGES):
        memory[page * 4096] = 1


def main():
    sink = os.open(os.devnull, os.O_WRONLY)
    memory = mmap.mmap(-1, PAGES * 4096)
    if hasattr(memory, "madvise"):
        memory.madvise(getattr(mmap, "MADV_NOHUGEPAGE", 15))
    print("ready", flush=True)
    sys.stdin.readline()
    write_often(sink)
    write_much(sink)
    touch_pages(memory)
    print("done", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
