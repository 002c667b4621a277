"""Where a process's memory is.

Source: /proc/PID/smaps_rollup; what `sys._debugmallocstats()` prints; glibc's mallinfo2().
"""

from __future__ import annotations

import re

from pprofpy.heap import Memory
from pprofpy.target import procfs

_ARENAS = re.compile(r"^\d+ arenas \* \d+ bytes/arena += +([\d,]+)$", re.MULTILINE)
_BLOCKS = re.compile(r"^# bytes in allocated blocks += +([\d,]+)$", re.MULTILINE)


def measure(pid: int, allocators: tuple[str, int] = ("", -1)) -> Memory:
    """Look at a process.

    Args:
        pid: Which.
        allocators: What `memory()` of the agent returned.
    """
    text, malloc = allocators
    rollup = _rollup(pid)
    uss = rollup["Private_Clean"] + rollup["Private_Dirty"] if rollup else -1
    return Memory(
        rss=rollup.get("Rss", -1),
        pss=rollup.get("Pss", -1),
        uss=uss,
        arenas=_number(_ARENAS, text),
        small_objects=_number(_BLOCKS, text),
        malloc=malloc,
    )


def _rollup(pid: int) -> dict[str, int]:
    """What the kernel says, in bytes; empty if the process has ended."""
    try:
        return procfs.memory_sums(pid)
    except OSError:
        return {}


def _number(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.search(text)
    return int(match[1].replace(",", "")) if match else -1
