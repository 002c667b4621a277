"""Spends known shares of its time in generators, recursion, comprehensions, callbacks from C, asyncio and exec'd code.

Its own CPU time decides which of them runs at any moment. `by_exec` compiles new code again and again;
three quarters of its time belong to functions called `made_often`, one to `made_rarely`. Prints `ready` once it runs.
Runs on every Python from 3.8 on.

Usage: shares.py [SECONDS]
"""

import asyncio
import itertools
import sys
import time

ROUND_S = 0.0297318
clock = time.process_time  # on a busy machine, whole parts would fall out by any other
MADE = "def {name}(until):\n    while clock() < until:\n        pass\n{name}(until)\n"


def ticks(until):
    while clock() < until:
        yield


def by_generator(until):
    for _ in ticks(until):
        pass


def by_recursion(until, depth=30):
    if depth:
        by_recursion(until, depth - 1)
    while clock() < until:
        pass


def by_comprehension(until):
    while clock() < until:
        [one * one for one in range(100)]


def callback(until):
    return clock() < until


def by_callback(until):
    for _ in itertools.takewhile(callback, itertools.repeat(until)):
        pass


async def coroutine(until):
    while clock() < until:
        await asyncio.sleep(0)


def by_asyncio(until):
    LOOP.run_until_complete(coroutine(until))


def by_exec(until):
    begin = clock()
    step = (until - begin) / 4
    for number in range(1, 5):
        name = "made_rarely" if number % 4 == 0 else "made_often"
        exec(MADE.format(name=name), {"clock": clock, "until": min(begin + number * step, until)})


PLAN = (
    (by_generator, 0.25), (by_recursion, 0.45), (by_comprehension, 0.60),
    (by_callback, 0.75), (by_asyncio, 0.90), (by_exec, 1.00),
)  # fmt: skip
LOOP = asyncio.new_event_loop()


def one_round():
    start = clock()
    for function, end in PLAN:
        function(start + end * ROUND_S)


def main(seconds):
    print("ready", flush=True)
    deadline = clock() + seconds
    while clock() < deadline:
        one_round()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 3600)
