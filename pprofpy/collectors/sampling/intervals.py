"""What the threads of watched processes do between two samples, counted by `intervals.h`: how long each one was off the
CPU, by the stack that it left it with, and how long on it.

Times are measured from switch to switch. What goes on as a window ends is counted up to there, and the rest in the next
one; what was before the first one began is not counted. So the times of a thread that lives all the while add up to the
length of each window.

Threads that are blocked already when they begin to be watched are read from outside.

Source: the raw tracepoints sched_switch, sched_process_fork, sched_process_exec.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.switches import OFF_CPU, TIMES, TRACKED, UNSEEN
from pprofpy.collectors.pystacks.blocked import BlockedThread, blocked_threads
from pprofpy.collectors.pystacks.processes import Processes
from pprofpy.collectors.sampling.cpu import SAMPLE
from pprofpy.target import procfs

RUNS, UNKNOWN = 0xFFFFFFFFFFFFFFF0, 0xFFFFFFFFFFFFFFF4
"""Instead of a stack: on the CPU; hidden from us."""

_BEFORE_WINDOW, _WINDOW_ID, _NUMBER = 0x80000000, 0x60000000, 0x1FFFFFFF
"""Parts of a window's number in the kernel's table: see intervals.h."""

_AHEAD_NS = 1_000_000
"""So long before a window begins, the kernel is told; it takes far less to finish what it has begun to count."""

_U4, _U8 = np.dtype("u4"), np.dtype("u8")
_THREAD = np.dtype(
    [("track", TRACKED), ("stack", "u8"), ("copy_due_ns", "u8"), ("kernel_stack", "i4"), ("is_copied", "u4")]
)
_INTERVAL = np.dtype([("at", SAMPLE), ("copied_ns", "u8")])
INTERVAL_LAYOUTS = {"thread": _THREAD, "interval": _INTERVAL, "tracked": TRACKED, "times": TIMES}
"""For the Source of a program that includes intervals.h."""


class Place(NamedTuple):
    """What times are summed up by.

    Attributes:
        stack: Python's, or RUNS or UNKNOWN; numbers of seeded stacks are even.
        tid, pid: The thread.
        kernel_stack: Its number; -1 for none.
        copied_ns: When the thread left its CPU, if its native stack was copied then (monotonic clock); else 0.
    """

    stack: int
    tid: int
    pid: int
    kernel_stack: int
    copied_ns: int


class Interval(NamedTuple):
    """Intervals that a thread spent at a place: how many, and how long they are altogether."""

    place: Place
    number: int
    total_ns: int


class Intervals:
    """The times of the threads of one loaded program's processes.

    Args:
        program: Includes intervals.h.
        labels: What else to label threads with that are blocked already.
    """

    def __init__(self, program: Program, labels: LabelOptions) -> None:
        self._program = program
        self._labels = labels
        self._threads = program.table("threads", _U4, _THREAD)
        self._times = program.table("intervals", _INTERVAL, TIMES)
        self._window_begin_ns = program.table("window_begin_ns", _U4, _U8)
        self._seeds: dict[int, BlockedThread] = {}
        self._new_seeds: set[int] = set()
        self._latest_seed = 0
        self._seeded = 0
        self._begin_ns = self._before_ns = self._window_id = 0
        self._is_new = False
        self._credited: set[int] = set()
        self._in_use: list[Place] = []

    def attach(self) -> None:
        """Begin to watch the switches of all processes that the program watches, and of those that it will."""
        for function in ("on_switch", "on_birth", "on_exec"):
            self._program.load_function(function)  # takes a while: attach them close together
        self._program.attach_raw("sched_process_fork", "on_birth")
        self._program.attach_raw("sched_process_exec", "on_exec")
        self._program.attach_raw("sched_switch", "on_switch")

    def seed_blocked_threads(self, processes: Processes) -> None:
        """Read the threads of processes that are new: no switch will tell what those do that are blocked."""
        for process in processes.since(self._seeded):
            self._seed_process(process.runtime.pid, process.runtime)
            self._seeded = process.number

    def _seed_process(self, pid: int, runtime: Runtime) -> None:
        for thread in blocked_threads(pid, runtime, self._labels):
            self._latest_seed += 2  # stacks that the kernel walks have odd numbers
            self._seeds[self._latest_seed] = thread
            self._new_seeds.add(self._latest_seed)
            self._seed_thread(thread.tid, pid, OFF_CPU, self._latest_seed)
        for tid in procfs.tids(pid):
            self._seed_thread(tid, pid, UNSEEN, 0)

    def _seed_thread(self, tid: int, pid: int, where: int, stack: int) -> None:
        """Not over an entry of the kernel's: it has seen the thread since, and knows better."""
        entry = np.zeros((), _THREAD)
        entry["track"]["since_ns"], entry["track"]["tgid"] = time.monotonic_ns(), pid
        entry["track"]["where"], entry["stack"], entry["kernel_stack"] = where, stack, -1
        self._threads.put_new(tid, entry)

    def forget(self, pid: int) -> None:
        """Forget the threads of a process that is watched no more; what they are at does not count."""
        tids, threads = self._threads.items()
        self._threads.clear(tids[threads["track"]["tgid"] == pid])

    def seed_of(self, stack: int) -> BlockedThread | None:
        """Return the thread that was read from outside, if a stack's number is that of one."""
        return self._seeds.get(stack)

    def _forget_seeds(self) -> None:
        """Forget those that nobody waits with any more since the last `take`, whose results have been read by now."""
        in_use = self.stacks_in_use() | self._new_seeds
        self._seeds = {stack: thread for stack, thread in self._seeds.items() if stack in in_use}
        self._new_seeds.clear()

    # -- reading -----------------------------------------------------------------------------------------------------

    def begin_window(self) -> int:
        """Begin a window; return when it began, a moment ago (monotonic clock).

        The kernel knows the moment before it comes, so that nothing is counted on the wrong side of it.
        """
        self._window_id = (self._window_id + 1) & 3
        begin_ns = ((time.monotonic_ns() + _AHEAD_NS) & ~3) | self._window_id
        self._window_begin_ns.put(0, begin_ns)
        if time.monotonic_ns() >= begin_ns:  # we had no CPU meanwhile
            return self.begin_window()
        self._before_ns = begin_ns - self._begin_ns if self._begin_ns else 0
        self._begin_ns = begin_ns
        self._is_new = True
        time.sleep(max(begin_ns + _AHEAD_NS - time.monotonic_ns(), 0) / 1e9)
        return begin_ns

    def unfinished(self, begin_ns: int, end_ns: int) -> list[Interval]:
        """Return what goes on at the end of a window, from its begin or later."""
        tids, threads = self._threads.items()
        found = []
        for place, since_ns in zip(_places(tids, threads), threads["track"]["since_ns"].tolist(), strict=True):
            if 0 < since_ns < end_ns:
                found.append(Interval(place, 1, end_ns - max(since_ns, begin_ns)))
        return found

    def take_unfinished(self, begin_ns: int) -> list[Interval]:
        """Return `unfinished` as of the next window's begin, where it will not count again; call it before `take`."""
        found = self.unfinished(begin_ns, self._begin_ns)
        self._credited = {one.place.tid for one in found}
        return found

    def take(self, window: int) -> list[Interval]:
        """Return finished intervals; if a window has just begun, those of the one before it alone.

        Args:
            window: The number that is still being written to: it is left alone.
        """
        self._forget_seeds()
        going_on = _places(*self._threads.items())  # first: what ends meanwhile is in the other table by then
        keys, times = self._times.items()
        numbers = keys["at"]["window"]
        done = (numbers & _NUMBER) != window
        if self._is_new:
            done &= (numbers & _WINDOW_ID) != self._window_id << 29
        done |= (numbers & _BEFORE_WINDOW) > 0
        self._is_new = False
        self._times.clear(keys[done])
        self._in_use = going_on + [_place(*key) for key in keys[~done].tolist()]
        found = []
        for key, (count, total_ns, _) in zip(keys[done].tolist(), times[done].tolist(), strict=True):
            place, number = _place(*key), key[0][-1]
            if number & _BEFORE_WINDOW:  # ended just after a window had begun, and may have been taken as unfinished
                total_ns = 0 if place.tid in self._credited else min(total_ns, self._before_ns)
            if total_ns:
                found.append(Interval(place, count, total_ns))
        return found

    def stacks_in_use(self) -> set[int]:
        """Return the stacks of what went on at the last `take`, and of what that left where it was."""
        return {place.stack for place in self._in_use} - {RUNS}

    def copies_in_use(self) -> set[tuple[int, int]]:
        """Return (tid, copied_ns) of these."""
        return {(place.tid, place.copied_ns) for place in self._in_use}


def _place(sample: tuple[int, int, int, int, int], copied_ns: int) -> Place:
    """Return what a key of the kernel's table stands for, whatever window it is of."""
    stack, tid, pid, kernel_stack, _ = sample
    return Place(stack, tid, pid, kernel_stack, copied_ns)


def _places(tids: NDArray[Any], threads: NDArray[Any]) -> list[Place]:
    """Return where each thread is now. One that was seen running, or ready to, still runs."""
    track = threads["track"]
    waits = track["where"] == OFF_CPU
    columns = (
        np.where(waits, threads["stack"], np.uint64(RUNS)),
        tids,
        track["tgid"],
        np.where(waits, threads["kernel_stack"], -1),
        np.where(waits & (threads["is_copied"] == 1), track["since_ns"], 0),
    )
    return [Place(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
