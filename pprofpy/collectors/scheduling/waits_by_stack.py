"""Waits for a CPU by the text of their stacks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.switches import TIMES
from pprofpy.collectors.kernel.windows import TableWindows
from pprofpy.collectors.pystacks.walked import WalkedStacks
from pprofpy.model.latency import StackWaits, ThreadWaits, sum_stacks
from pprofpy.text import without_numbers

_STACK_KEY = np.dtype(
    [("stack", "u8"), ("waker_stack", "u8"), ("tid", "u4"), ("was_preempted", "u2"), ("window", "u2")]
)
WAITS_BY_STACK_LAYOUTS = {"stack_key": _STACK_KEY}
"""For the Source of sched_latency.bpf.c with PYTHON."""

_KEEP_ENDED = 20_000
"""Ended threads keep stacks of their own up to this number; beyond it, they are summed by name."""


class WaitsByStack:
    """Waits by the text of their stacks, moved out of the kernel's table again and again.

    Args:
        program: Sums up a window at a time.
        python: The stacks that it refers to.
    """

    def __init__(self, program: Program, python: WalkedStacks) -> None:
        self._python = python
        self._windows = TableWindows(program)
        self._table = program.table("stack_waits", _STACK_KEY, TIMES)
        self._sums: defaultdict[_StackKey, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._ended: list[StackWaits] = []

    def take(self) -> tuple[list[int], list[int]]:
        """Take in what is at rest; returns the ids of stacks that the rest refers to."""
        keys, values, left = self._windows.take(self._table)
        self._add(keys, values)
        self._windows.end()
        return left["stack"].tolist(), left["waker_stack"].tolist()

    def move_out(self, threads: Mapping[int, ThreadWaits]) -> None:
        """Threads have ended: their numbers may soon be those of others."""
        keys, values = self._table.items()
        of_ended = np.isin(keys["tid"], list(threads))
        self._table.clear(keys[of_ended])
        self._add(keys[of_ended], values[of_ended])
        self._ended += self._spelled(threads)
        for key in [key for key in self._sums if key.tid in threads]:
            del self._sums[key]
        if len(self._ended) > _KEEP_ENDED:
            self._ended = sum_stacks(replace(one, name=without_numbers(one.name)) for one in self._ended)

    def take_rest(self) -> None:
        """Take in everything, when nobody writes any more."""
        self._add(*self._table.items())

    def found(self, threads: Mapping[int, ThreadWaits]) -> tuple[StackWaits, ...]:
        """All that was taken since the last call, also of threads that have ended."""
        found = (*self._ended, *self._spelled(threads))
        self._ended = []
        self._sums.clear()
        self._python.end_window()
        return found

    def _add(self, keys: NDArray[Any], values: NDArray[Any]) -> None:
        self._python.poll()
        number = self._python.number
        for (stack, waker_stack, tid, was_preempted, _), waits in zip(keys.tolist(), values.tolist(), strict=True):
            known = self._sums[_StackKey(tid, bool(was_preempted), number(stack), number(waker_stack))]
            known[0] += waits[0]
            known[1] += waits[1]
            known[2] = max(known[2], waits[2])

    def _spelled(self, threads: Mapping[int, ThreadWaits]) -> list[StackWaits]:
        """The sums of some threads."""
        spelled = self._python.spelled
        return [
            StackWaits(
                threads[key.tid].pid,
                key.tid,
                threads[key.tid].name,
                key.was_preempted,
                spelled(key.stack),
                spelled(key.waker_stack),
                *waits,
            )
            for key, waits in self._sums.items()
            if key.tid in threads
        ]


class _StackKey(NamedTuple):
    tid: int
    was_preempted: bool
    stack: int
    waker_stack: int
