"""This process's own memory: what it takes at most, and that what is freed goes back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from pathlib import Path

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_LARGE_BYTES = 4 << 20
"""Smaller arrays come again and again: taking their pages anew each time would make `trace` half as fast."""


def return_what_is_freed() -> None:
    """Have glibc give large arrays back as soon as they are freed.

    Left alone, it raises the size from which it does so to that of the largest array that was freed so far (32 MB at
    most), and keeps twice as much: after a window that came late, the process stays as large as that one was. Other C
    libraries have no such call, and need none.

    Source: man 3 mallopt (M_MMAP_THRESHOLD).
    """
    with suppress(AttributeError, OSError):
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            ctypes.CDLL(None).mallopt(parameter, _LARGE_BYTES)


def peak_bytes() -> int:
    """The largest resident set so far; 0 without /proc.

    getrusage(2) also counts the program that this process was forked from.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0
