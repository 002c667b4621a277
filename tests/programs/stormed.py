"""Counts its own work, and notices waits that end too early; for those who kill profilers. Usage: stormed.py FILE

Prints `ready`. The file holds the number of its rounds, as 8 bytes. At the end of standard input it prints what went
wrong, as a JSON list.
"""

import json
import mmap
import os
import pathlib
import sys
import threading
import time

BUSY_S, IDLE_S = 0.001, 0.005
wrong = []
ended = threading.Event()
lock = threading.Lock()


def sleeps():
    while not ended.is_set():
        start = time.monotonic()
        time.sleep(0.05)
        if time.monotonic() - start < 0.0499:
            wrong.append(f"a sleep of 50 ms took {time.monotonic() - start:.4f} s")


def waits():
    while not ended.is_set():
        with lock:
            pass
        time.sleep(IDLE_S)


def reads_the_end():
    sys.stdin.read()
    ended.set()


def work():
    """One round: allocates, computes, makes system calls."""
    blocks = [bytearray(50 + i) for i in range(100)]
    os.getppid()
    return sum(map(len, blocks))


with pathlib.Path(sys.argv[1]).open("r+b") as file:
    counter = mmap.mmap(file.fileno(), 8)
for job in (sleeps, waits, reads_the_end):
    threading.Thread(target=job, daemon=True).start()
print("ready", flush=True)
rounds = 0
while not ended.is_set():
    deadline = time.monotonic() + BUSY_S
    with lock:
        while time.monotonic() < deadline:
            if work() != 9950:
                wrong.append("a sum is wrong")
            rounds += 1
    counter[:8] = rounds.to_bytes(8, "little")
    time.sleep(IDLE_S)
print(json.dumps(wrong[:20]), flush=True)
