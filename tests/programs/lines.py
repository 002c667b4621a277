"""Spends known shares of its time on single lines of one function; the comment on each says how much. Prints `ready`.

Its own CPU time decides which line runs at any moment, as in burn.py. Runs on every Python from 3.8 on.
"""

import time

ROUND_S = 0.0057318
clock = time.thread_time


def ends():
    start = clock() // ROUND_S * ROUND_S
    return [start + part * ROUND_S for part in (0.4, 0.7, 0.9, 1.0)]


# fmt: off
def work():
    first, second, third, fourth = ends()
    while clock() < first: pass  # 40  # noqa: E701


    while clock() < second: pass  # 30  # noqa: E701
    if second:
        total = 0
        while clock() < third: total += 1  # 20  # noqa: E701
    while clock() < fourth: pass  # 10  # noqa: E701
# fmt: on


print("ready", flush=True)
while True:
    work()
