"""What a program in the kernel could not keep, counted there (`losses.h`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pprofpy.collectors.kernel.program import Program

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
    """The same, and for what the program did not even run."""
    return counted(program, names) | {"missed_events": program.missed()}
