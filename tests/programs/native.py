"""Burns known shares of its time in C functions, and some in Python, by the clock; prints `ready` once it does.

Usage: native.py LIBRARY [SECONDS]      the library is native.c, compiled
"""

import ctypes
import sys
import time

ROUND_S = 0.091318
clock = time.perf_counter
library = ctypes.CDLL(sys.argv[1])
for name in ("plain", "caller", "recursive", "growing", "aligned", "large", "huge"):
    function = getattr(library, name)
    function.restype = ctypes.c_double
    function.argtypes = [ctypes.c_double, ctypes.c_int]


def by_plain(until):
    library.plain(until, 0)


def by_caller(until):
    library.caller(until, 0)


def by_recursive(until):
    library.recursive(until, 20)


def by_growing(until):
    library.growing(until, 500)


def by_aligned(until):
    library.aligned(until, 300)


def by_large(until):
    library.large(until, 1)


def by_huge(until):
    library.huge(until, 1)


def in_python(until):
    while clock() < until:
        pass


PLAN = (
    (by_plain, 0.25), (by_caller, 0.45), (by_recursive, 0.60), (by_growing, 0.70), (by_aligned, 0.80), (by_large, 0.85),
    (by_huge, 0.90), (in_python, 1.00),
)  # fmt: skip


def main(seconds):
    print("ready", flush=True)
    deadline = clock() + seconds
    while clock() < deadline:
        start = clock() // ROUND_S * ROUND_S
        for function, end in PLAN:
            function(start + end * ROUND_S)


main(float(sys.argv[2]) if len(sys.argv) > 2 else 3600)
