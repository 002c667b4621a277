"""Threads that use the interpreter lock in known ways, by their own clocks. Prints `ready`, waits for a line.

    gil.py SECONDS WORK...     one thread for each WORK: asleep_in_c, want_it, compute

Then prints JSON, an object for each thread: its tid and what it has measured, in nanoseconds.
"""

import ctypes
import json
import os
import sys
import threading
import time
from contextlib import suppress
from functools import partial

HOLD_US = 40000
FELT_NS = 20_000  # so long a wait must be to be told from a call that just took its time

with_lock = ctypes.PyDLL(None)  # calls keep the lock, as those of C extensions do
without_lock = ctypes.CDLL(None)  # calls drop it, and take it again when they return
now_ns = time.perf_counter_ns


def asleep_in_c(own, end_ns):
    """Sleep in C with the lock in hand, and let others have it in between."""
    own["held_ns"] = 0
    steps = partial(now_ns), partial(with_lock.usleep, HOLD_US), partial(now_ns)
    while now_ns() < end_ns:
        # All three in C: between two instructions of Python others might get the lock.
        before_ns, _, after_ns = map(partial.__call__, steps)
        own["held_ns"] += after_ns - before_ns
        without_lock.usleep(200)


def want_it(own, end_ns):
    """Drop the lock and take it again. In between, C reads the clock: from then on the thread waits for the lock."""
    own.update(wait_ns=0, longest_ns=0, count=0)
    clock = (ctypes.c_int64 * 2)()
    steps = partial(without_lock.clock_gettime, time.CLOCK_MONOTONIC, clock), partial(now_ns)
    while now_ns() < end_ns:
        _, after_ns = map(partial.__call__, steps)
        waited_ns = after_ns - clock[0] * 1_000_000_000 - clock[1]
        if waited_ns > FELT_NS:
            own["count"] += 1
            own["wait_ns"] += waited_ns
            own["longest_ns"] = max(own["longest_ns"], waited_ns)


def compute(own, end_ns):
    """Hold the lock whenever it runs."""
    before_ns = time.thread_time_ns()
    while now_ns() < end_ns:
        spin()
    own["cpu_ns"] = time.thread_time_ns() - before_ns


def spin():
    number = 0
    for _ in range(2000):
        number += 1
    return number


def start(work, own, end_ns):
    def body():
        own["tid"] = threading.get_native_id()
        work(own, end_ns)

    thread = threading.Thread(target=body)
    thread.start()
    return thread


def main():
    seconds, works = float(sys.argv[1]), [globals()[name] for name in sys.argv[2:]]
    with suppress(OSError):  # ahead of all others: what has to wait for a CPU does not know it from a wait for the lock
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    print("ready", flush=True)
    sys.stdin.readline()
    owns = [{"work": work.__name__} for work in works]
    end_ns = now_ns() + int(seconds * 1e9)
    for thread in [start(work, own, end_ns) for work, own in zip(works, owns)]:  # noqa: B905 - runs on 3.8, too
        thread.join()
    print(json.dumps(owns), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
