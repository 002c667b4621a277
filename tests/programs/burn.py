"""Burns 50, 30, 15 and 5 % of its CPU time in four functions, by its own clock; prints `ready` once it does.

The clock decides which function runs: a moment of CPU time picked at random falls into each with exactly its share,
however the machine delays this program, or whoever samples it. (By a clock of wall time it would catch up after each
delay: 2 % of its time on a busy machine.) Runs on every Python from 3.8 on.

Usage: burn.py [SECONDS [REST_S]]     so long after each round, it sleeps
"""

import sys
import time

ROUND_S = 0.0057318  # no multiple or fraction of a timer tick

clock = time.thread_time


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


def main(seconds, rest_s=0.0):
    print("ready", flush=True)
    deadline = clock() + seconds
    while clock() < deadline:
        burn_round()
        if rest_s:
            time.sleep(rest_s)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:] or ["3600"]))
