"""Burns 50, 30, 15 and 5 % of its time in four functions, by its own clock; prints `ready` once it does.

The clock decides which function runs at any moment: a moment picked at random falls into each with exactly its share,
however the machine delays this program, or whoever looks at it. Runs on every Python from 3.8 on.

Usage: burn.py [SECONDS]
"""

import sys
import time

ROUND_S = 0.0017318  # no multiple or fraction of a kernel's timer tick: a profiler that wakes on ticks sees all phases

clock = time.perf_counter


def half(until):
    while clock() < until:
        pass


def third(until):
    while clock() < until:
        pass


def seventh(until):
    while clock() < until:
        pass


def rest(until):
    while clock() < until:
        pass


PLAN = ((half, 0.50), (third, 0.80), (seventh, 0.95), (rest, 1.00))


def burn_round():
    start = clock() // ROUND_S * ROUND_S
    for function, end in PLAN:
        function(start + end * ROUND_S)


def main(seconds):
    print("ready", flush=True)
    deadline = clock() + seconds
    while clock() < deadline:
        burn_round()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3600)
