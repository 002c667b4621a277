"""Tables that are emptied while the kernel writes them (`windows.h`), so that they stay small.

A writer reads the number of the window, then makes or changes an entry of that window. A while after a window has ended
nobody is still at it: its sums are whole, and taking them out loses nothing.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from pprofpy.collectors.kernel.maps import MapTable, Records
from pprofpy.collectors.kernel.program import Program

_U4 = np.dtype("u4")
_REST_NS = 200_000_000
"""A writer takes microseconds, unless its CPU is taken away from it."""


class Taken(NamedTuple):
    """What was in a table.

    Attributes:
        keys, values: What was taken out.
        left: The keys of what was not: it is still being written.
    """

    keys: Records
    values: Records
    left: Records


class TableWindows:
    """The windows of one program's tables.

    Args:
        program: Includes windows.h; the keys of its tables have a field `window`.
    """

    def __init__(self, program: Program) -> None:
        self._table = program.table("table_window", _U4, _U4)
        self._number = 0
        self._began_ns = 0

    def take(self, table: MapTable) -> Taken:
        """Take what was counted before this window out of a table; nothing if this window has only just begun."""
        keys, values = table.items()
        numbers = keys["window"]
        done = (numbers != np.array(self._number).astype(numbers.dtype)) & self._is_at_rest()
        table.clear(keys[done])
        return Taken(keys[done], values[done], keys[~done])

    def end(self) -> None:
        """Let the next window begin, unless this one has only just begun."""
        if self._is_at_rest():
            self._number += 1
            self._table.put(0, self._number & 0xFFFFFFFF)
            self._began_ns = time.monotonic_ns()

    def _is_at_rest(self) -> bool:
        """Has nobody been writing to the previous window for a while?"""
        return time.monotonic_ns() - self._began_ns >= _REST_NS
