"""What a program in the kernel could not keep: counted there (`losses.h`), put into words here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pprofpy.collectors.bpf.loader import Program

_U4, _U8 = np.dtype("u4"), np.dtype("u8")


def counted(program: Program, reasons: Sequence[str]) -> dict[str, int]:
    """How much a program could not keep, by reason.

    Args:
        program: Includes losses.h.
        reasons: In the order of its enum.
    """
    _, counts = program.table("lost", _U4, _U8).items()
    return {reason: int(count) for reason, count in zip(reasons, counts.sum(axis=1), strict=True)}


def losses(program: Program, reasons: Sequence[str]) -> dict[str, int]:
    """The same, and for what the program did not even run."""
    return counted(program, reasons) | {"events that the kernel did not hand over": program.missed()}


def in_words(lost: dict[str, int]) -> tuple[str, ...]:
    """A note for each reason by which something was lost."""
    return tuple(f"lost: {count:,} {reason}" for reason, count in lost.items() if count)
