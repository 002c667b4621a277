"""Memory of this process: what is freed goes back, and how much it was at most."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

LATE_WINDOW = """
import sys
import numpy as np
from pprofpy.system import own_memory
if sys.argv[1:]:
    own_memory.return_what_is_freed()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
kept = []
def window(size):
    arrays = [np.ones(size, np.uint8) for _ in range(8)]
    kept.append(np.ones(100_000, np.uint8))  # what a window leaves behind lies above its arrays
window(1 << 10)
before = resident()
for size in (16 << 20, 8 << 20, 5 << 20, 16 << 20):
    window(size)
print(resident() - before)
"""


def left_behind(*arguments: str) -> int:
    words = [sys.executable, "-c", LATE_WINDOW, *arguments]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_large_arrays_that_were_freed_are_gone() -> None:
    assert left_behind("return") < 4 << 20 < left_behind()


def test_the_largest_size_is_that_of_this_program_alone() -> None:
    large = bytearray(b"x") * (200 << 20)
    words = [sys.executable, "-c", "from pprofpy.system import own_memory; print(own_memory.peak_bytes())"]

    peak = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    assert len(large) > peak > 4 << 20
