"""Waits for the GIL, holds and blocks by the text of their stacks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.switches import TIMES
from pprofpy.collectors.kernel.windows import TableWindows
from pprofpy.collectors.pystacks.stacks import PythonStacks
from pprofpy.model.gil import Block, Hold, Wait
from pprofpy.model.label_text import to_text

_U8 = np.dtype("u8")
_AT = np.dtype([("stack", "u8"), ("tid", "u4"), ("window", "u4")])
_HELD = np.dtype([("on_ns", "u8"), ("off_ns", "u8")])
_BLOCKED = np.dtype(
    [
        ("holder_stack", "u8"),
        ("waiter_stack", "u8"),
        ("holder", "u4"),
        ("waiter", "u4"),
        ("window", "u4"),
        ("unused", "u4"),
    ]
)
GIL_SUM_LAYOUTS = {"at": _AT, "times": TIMES, "held": _HELD, "blocked": _BLOCKED}
"""For the Source of gil.bpf.c."""


class GilSums:
    """Waits, holds and blocks by the text of their stacks, moved out of the kernel's tables again and again.

    Args:
        program: Sums up a window at a time.
        stacks: Those that it refers to.
    """

    def __init__(self, program: Program, stacks: PythonStacks) -> None:
        self._stacks = stacks
        self._windows = TableWindows(program)
        self._tables = (
            (program.table("waits", _AT, TIMES), self._add_waits),
            (program.table("holds", _AT, _HELD), self._add_holds),
            (program.table("blocks", _BLOCKED, _U8), self._add_blocks),
        )
        self._waits: defaultdict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
        self._holds: defaultdict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
        self._blocks: defaultdict[tuple[int, int, int, int], int] = defaultdict(int)

    def take(self) -> tuple[set[int], set[int]]:
        """Take in what is at rest; returns the ids of stacks, and the threads, that the rest refers to."""
        taken = [self._windows.take(table) for table, _ in self._tables]
        self._stacks.poll()
        for (_, add), (keys, values, _) in zip(self._tables, taken, strict=True):
            add(keys, values)
        self._windows.end()
        waits, holds, blocks = (one.left for one in taken)
        stacks = waits["stack"], holds["stack"], blocks["holder_stack"], blocks["waiter_stack"]
        threads = waits["tid"], holds["tid"], blocks["holder"], blocks["waiter"]
        return set(np.concatenate(stacks).tolist()), set(np.concatenate(threads).tolist())

    def take_all(self) -> None:
        """Take in everything, when nobody writes any more."""
        for table, add in self._tables:
            add(*table.items())

    def add_unfinished(self, tids: NDArray[Any], threads: NDArray[Any], end_ns: int) -> None:
        """What went on when the recording ended: up to its end."""
        waiting = np.flatnonzero(threads["since_ns"])
        for place in waiting:
            one = threads[place]
            wait_ns = (int(one["back_ns"]) or end_ns) - int(one["since_ns"])
            self._add_wait(int(tids[place]), int(one["stack"]), 1, wait_ns, wait_ns)
        for place in np.flatnonzero(threads["hold_ns"]):
            holder, off_ns = threads[place], int(threads[place]["hold_ns"])
            self._add_hold(int(tids[place]), int(holder["stack"]), 0, end_ns - off_ns)
            for other in waiting[_want_what_is_held(threads[waiting], holder)]:
                who = int(holder["stack"]), int(threads[other]["stack"]), int(tids[place]), int(tids[other])
                self._add_block(*who, end_ns - max(off_ns, int(threads[other]["since_ns"])))

    def _add_waits(self, keys: NDArray[Any], times: NDArray[Any]) -> None:
        for (stack, tid, _), (count, total_ns, max_ns) in zip(keys.tolist(), times.tolist(), strict=True):
            self._add_wait(tid, stack, count, total_ns, max_ns)

    def _add_wait(self, tid: int, stack: int, count: int, total_ns: int, max_ns: int) -> None:
        self._add_wait_at(tid, self._stacks.number(stack), count, total_ns, max_ns)

    def _add_wait_at(self, tid: int, number: int, count: int, total_ns: int, max_ns: int) -> None:
        wait = self._waits[tid, number]
        wait[0] += count
        wait[1] += total_ns
        wait[2] = max(wait[2], max_ns)

    def _add_holds(self, keys: NDArray[Any], times: NDArray[Any]) -> None:
        for (stack, tid, _), (on_ns, off_ns) in zip(keys.tolist(), times.tolist(), strict=True):
            self._add_hold(tid, stack, on_ns, off_ns)

    def _add_hold(self, tid: int, stack: int, on_ns: int, off_ns: int) -> None:
        self._add_hold_at(tid, self._stacks.number(stack), on_ns, off_ns)

    def _add_hold_at(self, tid: int, number: int, on_ns: int, off_ns: int) -> None:
        hold = self._holds[tid, number]
        hold[0] += on_ns
        hold[1] += off_ns

    def _add_blocks(self, keys: NDArray[Any], times: NDArray[Any]) -> None:
        for (above, below, holder, waiter, _, _), time_ns in zip(keys.tolist(), times.tolist(), strict=True):
            self._add_block(above, below, holder, waiter, time_ns)

    def _add_block(self, holder_stack: int, waiter_stack: int, holder: int, waiter: int, time_ns: int) -> None:
        number = self._stacks.number
        self._blocks[holder, number(holder_stack), waiter, number(waiter_stack)] += time_ns

    def join(self, groups: Mapping[int, int]) -> None:
        """Have these threads count as their groups: tid -> number of the group."""
        waits, holds, blocks = self._waits.copy(), self._holds.copy(), self._blocks.copy()
        self.clear()
        for (tid, stack), (count, total_ns, max_ns) in waits.items():
            self._add_wait_at(groups.get(tid, tid), stack, count, total_ns, max_ns)
        for (tid, stack), (on_ns, off_ns) in holds.items():
            self._add_hold_at(groups.get(tid, tid), stack, on_ns, off_ns)
        for (holder, above, waiter, below), time_ns in blocks.items():
            self._blocks[groups.get(holder, holder), above, groups.get(waiter, waiter), below] += time_ns

    def clear(self) -> None:
        """Remove all sums."""
        for sums in (self._waits, self._holds, self._blocks):
            sums.clear()

    def waits(self) -> tuple[Wait, ...]:
        """All waits so far."""
        spelled = self._stacks.spelled
        return tuple(
            Wait(tid, spelled(stack), count, total_ns, max_ns, self._labels(stack))
            for (tid, stack), (count, total_ns, max_ns) in self._waits.items()
        )

    def holds(self) -> tuple[Hold, ...]:
        """All times of holding so far."""
        spelled = self._stacks.spelled
        return tuple(
            Hold(tid, spelled(stack), on_ns, off_ns, self._labels(stack))
            for (tid, stack), (on_ns, off_ns) in self._holds.items()
        )

    def blocks(self) -> tuple[Block, ...]:
        """All times so far that one thread blocked another."""
        spelled = self._stacks.spelled
        return tuple(
            Block(holder, spelled(above), waiter, spelled(below), time_ns, self._labels(above), self._labels(below))
            for (holder, above, waiter, below), time_ns in self._blocks.items()
        )

    def _labels(self, number: int) -> str:
        return to_text(self._stacks.labels_of(number))


def _want_what_is_held(waiting: NDArray[Any], holder: Any) -> NDArray[np.bool_]:
    """Which of these wait for the lock that this thread holds. A child has its lock at the same address."""
    is_same = (waiting["gil"] == holder["gil"]) & (waiting["track"]["tgid"] == holder["track"]["tgid"])
    return np.asarray(is_same & (waiting["back_ns"] == 0), np.bool_)
