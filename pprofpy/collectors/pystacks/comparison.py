"""Holding what the kernel walks against what is read from outside: a walk that is wrong must not go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_MOST_DOUBTS = 20
"""So many stacks of a process may differ from what is read from outside, before the walk is held for wrong."""

_MOST_THREADS = 1000


@dataclass(slots=True)
class Comparison:
    """One process's stacks against those read from outside, until one is the same.

    The kernel's stack is older than what is read: by up to the time between two polls. So the roots are compared, which
    hardly change; and a difference counts only if the root outside was the same when an earlier poll read it: a
    program that begins, or a thread of C's that calls one function after another, has many.

    Attributes:
        is_settled: One was the same: the walk is right.
    """

    is_settled: bool = False
    _doubts: int = 0
    _poll: int = 0
    _roots: dict[int, int] = field(default_factory=dict)
    _roots_before: dict[int, int] = field(default_factory=dict)

    def differs(self, poll: int, thread: int, walked: Sequence[int], outside: Sequence[int]) -> bool:
        """Take in a stack.

        Args:
            poll: The number of the poll that brought it, from 1 on.
            thread: The address of its thread's state.
            walked: The code objects that the kernel has seen, leaf-first.
            outside: Those that are read from outside now, leaf-first.

        Returns:
            Have too many been different?
        """
        if poll != self._poll:
            self._poll, self._roots_before, self._roots = poll, self._roots, {}
        if walked and walked[-1] in outside:
            self.is_settled = True
            self._roots, self._roots_before = {}, {}
            return False
        if not outside:
            return False
        if len(self._roots) < _MOST_THREADS:
            self._roots[thread] = outside[-1]
        self._doubts += self._roots_before.get(thread) == outside[-1]
        return self._doubts > _MOST_DOUBTS
