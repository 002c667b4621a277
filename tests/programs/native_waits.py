"""Waits in C functions for known times, and says by its own clock how long. Runs on any Python from 3.8 on.

Usage: native_waits.py LIBRARY NAP_S      the library is native_waits.c, compiled; a thread without Python naps so long

Prints `ready`, waits for a line, prints JSON (`wall_ns`: function -> time that it lasted, waiting or not) and waits for
a line again. `first` and `second` wait in the same function, from the same line.
"""

import ctypes
import json
import sys
import time

ROUNDS = 10
library = ctypes.CDLL(sys.argv[1])
wall_ns = {}


def calls(function, seconds):
    function(seconds)


for name in ("first", "second", "on_lock", "burns", "begin"):
    getattr(library, name).argtypes = [ctypes.c_double]
library.begin(float(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(ROUNDS):
    for name, wait_s in (("first", 0.03), ("second", 0.01), ("on_lock", 0.02), ("burns", 0.02)):
        before = time.perf_counter_ns()
        calls(getattr(library, name), wait_s)
        wall_ns[name] = wall_ns.get(name, 0) + time.perf_counter_ns() - before
print(json.dumps({"wall_ns": wall_ns}), flush=True)
sys.stdin.readline()
