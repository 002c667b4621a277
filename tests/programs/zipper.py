"""Spends its time in C: compresses random bytes. Prints `ready` first."""

import os
import zlib


def press():
    zlib.compress(data, 9)


data = os.urandom(1 << 18)
print("ready", flush=True)
while True:
    press()
