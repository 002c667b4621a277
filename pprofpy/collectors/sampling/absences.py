"""What the threads of watched processes do between the looks of a clock, counted by `absences.h`: how long each one was
off the CPU, by the stack that it left it with, and how long on it.

Times are measured from switch to switch. What goes on as a window ends is counted up to there, and the rest in the next
one; what was before the first one began is not counted. So the times of a thread that lives all the while add up to the
length of each window.

Threads that are blocked already when they begin to be watched are looked at from outside.

Source: the raw tracepoints sched_switch, sched_process_fork, sched_process_exec.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.kernel.losses import counted
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.scheduler import scheduler_constants
from pprofpy.collectors.pystacks.blocked import BlockedThread, blocked_threads
from pprofpy.target import procfs

RUNS, _RUNS_OR_IS_READY, UNKNOWN = 0xFFFFFFFFFFFFFFF0, 0xFFFFFFFFFFFFFFF2, 0xFFFFFFFFFFFFFFF4
"""Instead of a stack: on the CPU; on it or about to be, as seen from outside; hidden from us."""

_BEFORE_WINDOW = 0x80000000
"""In a window's number: what of a time lies before it."""

_MAX_THREADS = 32_768
_U4, _U8 = np.dtype("u4"), np.dtype("u8")
_THREAD = np.dtype([("since_ns", "u8"), ("state", "u8"), ("tgid", "u4"), ("kernel_stack", "i4")])
_SPELLS = np.dtype([("count", "u8"), ("total_ns", "u8")])
ABSENCE_LAYOUTS = {"thread": _THREAD, "spells": _SPELLS}
"""For `load(layouts=...)` of a program that includes absences.h."""

_LOST = ("hidden_switches", "threads_full", "off_cpu_full", "kernel_stacks_full")
"""What could not be had, in the order of the enum in absences.h."""


def absence_constants() -> dict[str, int]:
    """What absences.h must know.

    Raises:
        NotPossibleError: This kernel's scheduler looks like none that we know.
    """
    return {"IDLE": 1, "MAX_THREADS": _MAX_THREADS} | scheduler_constants()


class Place(NamedTuple):
    """What times are summed up by; `stack` may be RUNS or UNKNOWN. Numbers of seeded stacks are even."""

    stack: int
    tid: int
    pid: int
    kernel_stack: int


class Spells(NamedTuple):
    """Times that a thread spent at a place: how many, and how long they are altogether."""

    place: Place
    number: int
    total_ns: int


class Absences:
    """The times of the threads of one loaded program's processes.

    Args:
        program: Includes absences.h.
        sample: What its `struct sample` is read as.
    """

    def __init__(self, program: Program, sample: np.dtype[Any]) -> None:
        self._program = program
        self._threads = program.table("threads", _U4, _THREAD)
        self._times = program.table("absences", sample, _SPELLS)
        self._window_begin_ns = program.table("window_begin_ns", _U4, _U8)
        self._seeds: list[BlockedThread | None] = [None]
        self._known: dict[int, Runtime] = {}
        self._begin_ns = self._before_ns = 0
        self._credited: set[int] = set()

    def attach(self) -> None:
        """Begin to watch the switches of all processes that the program watches, and of those that it will."""
        for function in ("on_switch", "on_birth", "on_exec"):
            self._program.load_function(function)  # takes a while: attach them close together
        self._program.attach_raw("sched_process_fork", "on_birth")
        self._program.attach_raw("sched_process_exec", "on_exec")
        self._program.attach_raw("sched_switch", "on_switch")

    def seed(self, runtimes: dict[int, Runtime]) -> None:
        """Look at the threads of processes that are new: no switch will tell what those do that are blocked.

        Args:
            runtimes: pid -> interpreter, of all processes that are watched.
        """
        for pid, runtime in runtimes.items():
            if self._known.get(pid) is not runtime:
                self._seed_process(pid, runtime)
        self._known = runtimes

    def _seed_process(self, pid: int, runtime: Runtime) -> None:
        for thread in blocked_threads(pid, runtime):
            self._seeds.append(thread)
            self._seed_thread(thread.tid, pid, 2 * (len(self._seeds) - 1))
        for tid in procfs.tids(pid):
            self._seed_thread(tid, pid, _RUNS_OR_IS_READY)

    def _seed_thread(self, tid: int, pid: int, state: int) -> None:
        """Not over an entry of the kernel's: it has seen the thread since, and knows better."""
        self._threads.put_new(tid, np.array((time.monotonic_ns(), state, pid, -1), _THREAD))

    def seed_of(self, stack: int) -> BlockedThread | None:
        """The thread that was looked at from outside, if a stack's number is that of one."""
        return None if stack & 1 or stack >= RUNS else self._seeds[stack // 2]

    # -- reading -----------------------------------------------------------------------------------------------------

    def begin_window(self, begin_ns: int) -> None:
        """Count what happens from now on apart from what was before; the recorder then counts into another window."""
        self._before_ns = begin_ns - self._begin_ns if self._begin_ns else 0
        self._begin_ns = begin_ns
        self._window_begin_ns.put(0, begin_ns)

    def unfinished(self, begin_ns: int, end_ns: int) -> list[Spells]:
        """What goes on at the end of a window, from its begin or later."""
        tids, threads = self._threads.items()
        return [
            Spells(Place(_state(state), tid, pid, kernel_stack), 1, end_ns - max(since_ns, begin_ns))
            for tid, (since_ns, state, pid, kernel_stack) in zip(tids.tolist(), threads.tolist(), strict=True)
            if since_ns < end_ns
        ]

    def take_unfinished(self, begin_ns: int) -> list[Spells]:
        """The same at the begin of the next window, in which it will not count; call it before `take`."""
        found = self.unfinished(begin_ns, self._begin_ns)
        self._credited = {place.tid for place, _, _ in found}
        return found

    def take(self, window: int) -> list[Spells]:
        """What is over.

        Args:
            window: The number of the one that is still being written to: it is left alone.
        """
        keys, times = self._times.items()
        done = keys["window"] != window
        self._times.clear(keys[done])
        found = []
        for key, (count, total_ns) in zip(keys[done].tolist(), times[done].tolist(), strict=True):
            *place, number = key
            if number & _BEFORE_WINDOW:  # ended just after a window had begun, and may have been taken as unfinished
                total_ns = 0 if place[1] in self._credited else min(total_ns, self._before_ns)
            if total_ns:
                found.append(Spells(Place(*place), count, total_ns))
        return found

    def stacks_in_use(self) -> set[int]:
        """The numbers of the stacks that threads wait with right now."""
        return {state for state in self._threads.items()[1]["state"].tolist() if state < RUNS}

    def losses(self) -> dict[str, int]:
        """How much of what could not be had."""
        return {name: count for name, count in counted(self._program, _LOST).items() if count}


def _state(state: int) -> int:
    """Nothing has happened to a thread that was seen running, or ready to, so it runs."""
    return RUNS if state == _RUNS_OR_IS_READY else state
