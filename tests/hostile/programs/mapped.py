"""Maps files that mislead whoever looks for Python in its memory map. The first argument says how."""

import ctypes
import mmap
import os
import struct
import sys
import threading
import time
from pathlib import Path

LIBRARY = Path("libpython3.11.so.1.0")
HEAD = b"\x7fELF\x02\x01\x01"
kept = []


def map_file(path):
    """Map the first page of a file, as code: loaders do."""
    with path.open("rb") as stream:
        kept.append(mmap.mmap(stream.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))


def write(path, content=b"", size=4096):
    path.write_bytes(content)
    os.truncate(path, max(size, len(content)))
    return path


def newline():
    """Names that continue on lines of their own, where an interpreter seems to be mapped."""
    fake = "7f0000000000-7f0000001000 r-xp 00000000 00:00 0 "
    for number, end in enumerate("\n\r\f\x1c\x85\u2028"):
        folder = Path(f"x{number}{end}{fake}")
        folder.mkdir()
        map_file(write(folder / LIBRARY))
        map_file(write(Path(f"y{number}{end}NSpid:\t1 (deleted)")))
    map_file(write(Path(os.fsdecode(b"invalid \xff\xfe.so"))))


def fifo():
    """A FIFO in the place of a mapped library: opening it waits for a writer for ever."""
    map_file(write(LIBRARY))
    LIBRARY.unlink()
    os.mkfifo(LIBRARY)


def sparse():
    """A library of eight terabytes of nothing; the first page looks like ELF."""
    map_file(write(LIBRARY, HEAD.ljust(64, b"\0"), 8 << 40))


def elf():
    """A library that says that it has 60,000 tables of symbols, each with the same 32 MB, most of them not there."""
    names = b"_PyRuntime\0" * 1000000
    head = HEAD.ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 4096, 0, 64, 56, 1, 64, 60000, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 1 << 30, 1 << 30, 4096)
    table = struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, 1 << 24, 32 << 20, 0, 0, 0, 0)
    text = struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, 8 << 20, len(names), 0, 0, 0, 0)
    constants = struct.pack("<IIQQQQIIQQ", 0, 1, 2, 0, 0, 60 << 20, 0, 0, 0, 0)
    content = (head + segment).ljust(4096, b"\0") + text + table * 30000 + constants * 29999
    map_file(write(LIBRARY, content.ljust(8 << 20, b"\0") + names, 1 << 30))


def many():
    """A thousand libraries of Python, each of some size."""
    for number in range(1000):
        map_file(write(Path(f"libpython3.{number}.so"), HEAD.ljust(64, b"\0"), 1 << 30))


def crowd():
    """Very many mappings of a file with a path as long as can be: some 40 MB of text, more than pprofpy reads.

    There could be six times as many; what the test itself reads of them then takes a minute.
    """
    for _ in range(15):
        Path("x" * 250).mkdir()
        os.chdir("x" * 250)
    write(Path("y"))
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    file = os.open("y", os.O_RDONLY)
    for _ in range(10000):
        libc.mmap(None, ctypes.c_size_t(4096), mmap.PROT_READ, mmap.MAP_PRIVATE, file, ctypes.c_long(0))


def burn(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        bytearray(100_000)
        time.sleep(0.0001)


thread = threading.Thread(target=bytearray, args=(100_000,))  # the first one costs a signal handler and memory
thread.start()
thread.join()
Path(sys.argv[1]).mkdir()  # others may do something else in the same folder
os.chdir(sys.argv[1])
globals()[sys.argv[1]]()
print("ready", flush=True)
burn(3600)
