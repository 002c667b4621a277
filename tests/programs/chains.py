"""Goes from Python through C to Python again, in many ways, each for a known share of its CPU time. Runs from 3.8 on.

Usage: chains.py LIBRARY CPP_LIBRARY [all]    chains.c and chains.cpp, compiled

Each way ends in `innermost`, half of whose time is in the C function `plain`, the rest in Python. Prints `ready`.
With `all`, there is a way through Cython (`chains_cython`) and one through numpy, too, and all shares are smaller.
"""

import ctypes
import functools
import re
import sys
import time

ROUND_S = 0.041318
PATTERN = re.compile("x")
clock = time.thread_time
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_double)
library, classes = map(ctypes.CDLL, sys.argv[1:3])
library.plain.argtypes, library.plain.restype = [ctypes.c_double], ctypes.c_double
library.through.argtypes = classes.through_classes.argtypes = [CALLBACK, ctypes.c_double]


def innermost(until):
    library.plain(until - (until - clock()) / 2)
    while clock() < until:
        pass


@CALLBACK
def called_back(until):
    innermost(until)


def by_sorted(until):
    def key_of(item):
        innermost(until)
        return item

    sorted((1,), key=key_of)


def by_reduce(until):
    def combine(left, right):
        innermost(until)
        return right

    functools.reduce(combine, (1, 2))


def by_pattern(until):
    def replacement(match):
        innermost(until)
        return ""

    PATTERN.sub(replacement, "x")


def by_callback(until):
    library.through(called_back, until)


def by_classes(until):
    classes.through_classes(called_back, until)


def by_slot(until):
    class Container:
        def __len__(self):
            innermost(until)
            return 0

    len(Container())


def by_recursion(until):
    def descend(depth):
        if depth:
            list(map(descend, (depth - 1,)))
        else:
            innermost(until)

    descend(6)


def by_generator(until):
    def produce():
        innermost(until)
        yield 1

    sum(produce())


WAYS = [by_sorted, by_reduce, by_pattern, by_callback, by_classes, by_slot, by_recursion, by_generator]

if sys.argv[3:] == ["all"]:
    import chains_cython
    import numpy

    def by_cython(until):
        chains_cython.through(innermost, until)

    def by_ufunc(until):
        def element(value):
            innermost(until)
            return value

        numpy.frompyfunc(element, 1, 1)(numpy.arange(1))

    WAYS += [by_cython, by_ufunc]


def main():
    print("ready", flush=True)
    while True:
        start = clock()
        for number, way in enumerate(WAYS, 1):
            way(start + ROUND_S * number / len(WAYS))


main()
