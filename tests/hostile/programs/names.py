"""Names that forge: the kernel's thread names (any 15 bytes), the command line, functions and files of the code."""

import ctypes
import threading
import time

NAMES = [
    b"x\nNSpid:\t1\t1\t1",
    b"a) R 1 1 1 1 1",
    b"\x1b[2J\x1b]0;pwn\x07",
    b"\xff\xfe\x85\x1c\x0c\r",
    b"\xe2\x80\xae\xe2\x80\xa8evil",
    b"",
]
FILE = "/srv/a b;c\n\x1b[31m\x85\x0c\u202e<script>.py"
SOURCE = """
def burn(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        bytearray(100_000)
        time.sleep(0.001)
"""

libc = ctypes.CDLL(None)
namespace = {"time": time}
exec(compile(SOURCE, FILE, "exec"), namespace)
burn = namespace["burn"]
burn.__code__ = burn.__code__.replace(co_name="thread (1): \x1b[31m\n\u2028not a thread")
named = threading.Barrier(len(NAMES) + 1)


def work(name):
    libc.prctl(15, name, 0, 0, 0)
    named.wait()
    burn(3600)


for name in NAMES:
    threading.Thread(target=work, args=(name,), name=repr(name) + "\x1b[31m\n", daemon=True).start()
named.wait()
libc.prctl(15, NAMES[0], 0, 0, 0)
print("ready", flush=True)
burn(3600)
