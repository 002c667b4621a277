"""Collects garbage of each generation, in a function of its own for each; computes for as long in `computes`.

Python 3.8 and later.
"""

import gc
import time


class Node:
    def __init__(self):
        self.me = self


def computes(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def young(count):
    return [Node() for _ in range(count)]


def collects_0():
    gc.collect(0)


def collects_1():
    gc.collect(1)


def collects_2():
    gc.collect(2)


gc.disable()
kept = young(20000)
gc.collect()
print("ready", flush=True)
while True:
    for collect in (collects_0, collects_1, collects_2):
        fresh = young(2000)
        begin = time.thread_time()
        collect()
        computes(time.thread_time() - begin)
        del fresh
