"""Shares its only CPU with another process. Prints `ready`, waits for a line, computes, prints JSON: how long it has
waited for the CPU meanwhile, and how often it got it, as the kernel's own accounting has it.

Usage: queued.py SECONDS      of CPU time
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def account():
    """Nanoseconds in the run queue, and turns on a CPU."""
    _, waited_ns, count = map(int, Path("/proc/thread-self/schedstat").read_text().split())
    return waited_ns, count


def compute(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        sum(range(1000))


def main(seconds):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("ready", flush=True)
    sys.stdin.readline()
    rival = os.fork()
    if not rival:
        compute(3600)
    before = account()
    compute(seconds)
    after = account()
    os.kill(rival, signal.SIGKILL)
    print(json.dumps({"waited_ns": after[0] - before[0], "count": after[1] - before[1]}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(float(sys.argv[1]))
