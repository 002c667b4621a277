"""Makes known system calls, each kind in a thread of its own. Prints `ready`, waits for a line, then `done`.

1,000 getppid, 5 clock_nanosleep of 20 ms, 4 openat of files that are not there (3 with a hostile name, one with a long
one), 10 times openat, read and close.
"""

import contextlib
import os
import sys
import threading
import time

LONG = "/tmp/pprofpy" + "/long" * 100
HOSTILE = '/tmp/pprofpy no\nsuch\x1b[31m file\u202e"\\'


def ask_for_the_parent():
    for _ in range(1000):
        os.getppid()


def sleep():
    for _ in range(5):
        time.sleep(0.02)


def open_what_is_not_there():
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            os.open(HOSTILE, os.O_RDONLY)
    with contextlib.suppress(FileNotFoundError):
        os.open(LONG, os.O_RDONLY)


def read_a_file():
    for _ in range(10):
        descriptor = os.open(__file__, os.O_RDONLY)
        os.read(descriptor, 16)
        os.close(descriptor)


def main():
    print("ready", flush=True)
    sys.stdin.readline()
    for work in (ask_for_the_parent, sleep, open_what_is_not_there, read_a_file):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    print("done", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
