"""Threads that compute, allocate, sleep and wait for each other, so that every recording finds something."""

import threading
import time

kept = []
lock = threading.Lock()


def compute():
    while True:
        with lock:
            sum(range(10000))
        time.sleep(0.001)  # else it takes a whole CPU from the tests beside it


def allocate():
    while True:
        kept.append(bytearray(4096))
        if len(kept) > 1000:
            kept.clear()
        time.sleep(0.001)


for work in (compute, compute, allocate):
    threading.Thread(target=work, name=work.__name__, daemon=True).start()
print("ready", flush=True)
time.sleep(1000)
