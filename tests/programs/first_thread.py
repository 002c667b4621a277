"""Loses its first thread, on a newline: `ends` without the others, or another one `execs` another program, `after`.

A thread burns CPU time in `before` until then, and in `after` from then on. Prints `ready`.
"""

import ctypes
import os
import sys
import threading
import time

turn = threading.Event()


def before():
    while not turn.is_set():
        pass


def after():
    end = time.monotonic() + 3600
    while time.monotonic() < end:
        pass


def burn():
    before()
    if sys.argv[1] == "execs":
        os.execv(sys.executable, [sys.executable, __file__, "is new"])
    after()


if sys.argv[1] == "is new":
    after()
threading.Thread(target=burn).start()
print("ready", flush=True)
sys.stdin.readline()
turn.set()
if sys.argv[1] == "ends":
    ctypes.CDLL(None).pthread_exit(None)
threading.Event().wait()
