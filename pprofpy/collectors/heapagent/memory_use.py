"""Where a process's memory is.

Source: /proc/PID/smaps_rollup; what `sys._debugmallocstats()` prints; glibc's mallinfo2().
"""

from __future__ import annotations

import re

from pprofpy.model.heap import MemoryUse
from pprofpy.target import procfs

_FLAGS = re.ASCII | re.MULTILINE
_ARENAS = re.compile(r"^\d{1,20} arenas \* \d{1,20} bytes/arena {1,80}= {1,80}([\d,]{1,24})$", _FLAGS)
_BLOCKS = re.compile(r"^# bytes in allocated blocks {1,80}= {1,80}([\d,]{1,24})$", _FLAGS)
_MOST = 1 << 48


def measure(pid: int, allocators: tuple[str, int] = ("", -1)) -> MemoryUse:
    """Look at a process.

    Args:
        pid: Which.
        allocators: What `memory()` of the agent returned; what makes no sense in it is left out.
    """
    text, malloc = allocators
    try:
        rollup = procfs.memory_sums(pid)
    except OSError:  # it has ended
        rollup = {}
    uss = rollup.get("Private_Clean", 0) + rollup.get("Private_Dirty", 0) if rollup else -1
    return MemoryUse(
        rss=rollup.get("Rss", -1),
        pss=rollup.get("Pss", -1),
        uss=uss,
        arenas=_number(_ARENAS, text),
        small_objects=_number(_BLOCKS, text),
        malloc=malloc if 0 <= malloc < _MOST else -1,
    )


def _number(pattern: re.Pattern[str], text: str) -> int:
    """What the target's allocator says, if a process can have so much."""
    match = pattern.search(text)
    number = int(match[1].replace(",", "") or -1) if match else -1
    return number if number < _MOST else -1
