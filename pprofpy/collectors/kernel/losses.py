"""What a program in the kernel could not keep, counted there (`losses.h`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pprofpy.collectors.kernel.program import Program

_TABLES = {
    "threads": "threads_full",
    "targets": "children_full",
    "target_threads": "new_threads",
    "python_targets": "python_children_full",
    "late_stacks": "python_stacks_full",
}
"""Tables that user space writes to, too, and what it is called if they are full."""
_PYTHON = "python_"
"""So begin the names of what is lost of Python stacks alone: nothing that was recorded is missing for it."""

_U4, _U8 = np.dtype("u4"), np.dtype("u8")


def losses(program: Program, names: Sequence[str]) -> dict[str, int]:
    """How much a program could not keep, did not even run for, or found no room for in its tables.

    Args:
        program: Includes losses.h.
        names: What each number of its enum is called, in order.
    """
    found = _counted(program, "lost", names) | {"missed_events": program.missed()}
    return _with_refused(program, found, of_python=False)


def python_losses(program: Program, names: Sequence[str]) -> dict[str, int]:
    """The same of the Python stacks that it walked; includes python.h."""
    return _with_refused(program, _counted(program, "python_missed", names), of_python=True)


def _counted(program: Program, table: str, names: Sequence[str]) -> dict[str, int]:
    _, counts = program.table(table, _U4, _U8).items()
    return {name: int(count) for name, count in zip(names, counts.sum(axis=1), strict=True)}


def _with_refused(program: Program, found: dict[str, int], *, of_python: bool) -> dict[str, int]:
    """With what we could not enter ourselves."""
    for table, name in _TABLES.items():
        if name.startswith(_PYTHON) == of_python and (count := program.refused(table)):
            found[name] = found.get(name, 0) + count
    return found
