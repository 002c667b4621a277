"""What a program in the kernel could not keep, counted there (`losses.h`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pprofpy.collectors.kernel.program import Program

_TABLES = {"threads": "threads_full", "targets": "children_full", "target_threads": "new_threads"}
"""Tables that user space writes to, too, and what it is called if they are full."""

_U4, _U8 = np.dtype("u4"), np.dtype("u8")


def counted(program: Program, names: Sequence[str]) -> dict[str, int]:
    """How much a program could not keep.

    Args:
        program: Includes losses.h.
        names: What each number of its enum is called, in order.
    """
    _, counts = program.table("lost", _U4, _U8).items()
    return {name: int(count) for name, count in zip(names, counts.sum(axis=1), strict=True)}


def losses(program: Program, names: Sequence[str]) -> dict[str, int]:
    """The same, what the program did not even run for, and what we could not enter into its tables ourselves."""
    found = counted(program, names) | {"missed_events": program.missed()}
    for table, name in _TABLES.items():
        if count := program.refused(table):
            found[name] = found.get(name, 0) + count
    return found
