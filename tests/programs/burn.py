"""Burns 50, 30, 15 and 5 % of its CPU time in four functions, by its own clock; prints `ready` once it does.

Usage: burn.py [SECONDS]. Runs on every Python from 3.8 on.
"""

import sys
import time

ROUND_S = 0.02


def half(until):
    while time.thread_time() < until:
        pass


def third(until):
    while time.thread_time() < until:
        pass


def seventh(until):
    while time.thread_time() < until:
        pass


def rest(until):
    while time.thread_time() < until:
        pass


SHARES = ((half, 0.50), (third, 0.30), (seventh, 0.15), (rest, 0.05))


def burn_round(start):
    """One round. Each function starts where the plan says, not where the last one ended: errors do not add up."""
    until = start
    for function, share in SHARES:
        until += share * ROUND_S
        function(until)
    return until


def main(seconds):
    print("ready", flush=True)
    deadline = time.monotonic() + seconds
    until = time.thread_time()
    while time.monotonic() < deadline:
        until = burn_round(until)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3600)
