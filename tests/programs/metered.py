"""Works a little, and keeps account of all that it does; for those who compare. Usage: metered.py FILE

Prints `ready`. Appends a row to the file 20 times a second: Unix time, CPU time of the process, its switches, those
that the thread `sleeper` wanted, calls of getppid, bytes that `allocate` has allocated: 6 numbers of 8 bytes.
"""

import os
import pathlib
import resource
import struct
import sys
import threading
import time

ROW = struct.Struct("<6q")
sleeper_switches = 0


def sleeps():
    global sleeper_switches
    while True:
        time.sleep(0.02)
        sleeper_switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(200))


def allocate():
    for _ in range(10):
        bytearray(10_000)


def row(calls, allocated):
    usage = resource.getrusage(resource.RUSAGE_SELF)
    switches = usage.ru_nvcsw + usage.ru_nivcsw
    return ROW.pack(time.time_ns(), time.process_time_ns(), switches, sleeper_switches, calls, allocated)


threading.Thread(target=sleeps, name="sleeper", daemon=True).start()
calls = allocated = 0
with pathlib.Path(sys.argv[1]).open("ab", buffering=0) as log:
    print("ready", flush=True)
    while True:
        log.write(row(calls, allocated))
        for _ in range(5):
            compute(0.002)
            for _ in range(4):
                os.getppid()
            calls += 4
            allocate()
            allocated += 100_000
            time.sleep(0.008)
