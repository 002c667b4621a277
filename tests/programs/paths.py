"""Switches between many call paths as fast as it can; prints `ready` once it does. Runs on every Python from 3.8 on.

Each function calls only those that its name says: `n12_3` calls `n13_0` to `n13_3` of its own kind. A stack in which
the depth does not rise by one from frame to frame, or the kind changes, never happened.

Three kinds: plain functions, generators that delegate, and functions called back from C (`map`).
Usage: paths.py [SECONDS [THREADS]]
"""

import random
import sys
import threading
import time

WIDTH, DEPTH = 4, 12
namespace = {"random": random.random}

PLAIN = """
def plain{depth}_{index}():
    return {call}()
"""
GENERATOR = """
def gen{depth}_{index}():
    yield from {call}()
"""
CALLBACK = """
def call{depth}_{index}(_=None):
    return list(map({call}, (None,)))
"""
LEAVES = """
def plain{depth}_{index}():
    return 1
def gen{depth}_{index}():
    yield 1
def call{depth}_{index}(_=None):
    return 1
"""


def define():
    for index in range(WIDTH):
        exec(compile(LEAVES.format(depth=DEPTH, index=index), "<paths>", "exec"), namespace)
    for depth in reversed(range(DEPTH)):
        for index in range(WIDTH):
            for kind, text in (("plain", PLAIN), ("gen", GENERATOR), ("call", CALLBACK)):
                choice = "({})[int(random() * {})]".format(
                    ", ".join(f"{kind}{depth + 1}_{i}" for i in range(WIDTH)), WIDTH
                )
                exec(compile(text.format(depth=depth, index=index, call=choice), "<paths>", "exec"), namespace)


def main(seconds, threads):
    define()
    deadline = time.monotonic() + seconds
    for _ in range(threads - 1):
        threading.Thread(target=call_all, args=(deadline,), daemon=True).start()
    print("ready", flush=True)
    call_all(deadline)


def call_all(deadline):
    roots = [namespace[f"{kind}0_{index}"] for kind in ("plain", "gen", "call") for index in range(WIDTH)]
    while time.monotonic() < deadline:
        for root in roots:
            result = root()
            if hasattr(result, "send"):
                for _ in result:
                    pass


if __name__ == "__main__":
    main(float((sys.argv[1:] or ["3600"])[0]), int((sys.argv[2:] or ["1"])[0]))
