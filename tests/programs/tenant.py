"""Does a bit of everything, in functions that tell it; prints `ready` once it does. Python 3.8 or later."""

import hashlib
import mmap
import os
import threading
import time

BLOCK = b"x" * (1 << 20)
kept = []


def burn():
    while True:
        compute()
        hash_it()


def compute():
    for _ in range(20_000):
        pass


def hash_it():
    hashlib.sha256(BLOCK).digest()


def doze():
    while True:
        time.sleep(0.01)


def call():
    while True:
        os.getppid()
        time.sleep(0.001)


def allocate():
    while True:
        kept.append(bytearray(100_000))
        del kept[:-50]
        with mmap.mmap(-1, 4096) as page:
            page.write(b"x")
        time.sleep(0.002)


def start_brief():
    while True:
        thread = threading.Thread(target=brief, name="brief")
        thread.start()
        thread.join()


def brief():
    time.sleep(0.02)


for function in (burn, burn, doze, call, allocate, start_brief):
    threading.Thread(target=function, name=function.__name__, daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
