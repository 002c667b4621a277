"""Run-queue latency: how long runnable threads wait for a CPU.

It is counted in the kernel by `probes/sched_latency.bpf.c`.

The kernel keeps one entry for each thread and one for each histogram bucket in use, so that cost and memory do not
depend on the number of switches. Threads that have ended are moved out of its maps as the recording goes.

Source: the raw tracepoints sched_switch, sched_waking, sched_wakeup_new, task_rename, sched_process_fork.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.cpython.thread_names import Interpreters, ThreadNames
from pprofpy.collectors.kernel.ids import OUTSIDE
from pprofpy.collectors.kernel.known_threads import KnownThreads
from pprofpy.collectors.kernel.scope import Scope, comm_text
from pprofpy.collectors.kernel.source import ProbeSource
from pprofpy.collectors.pystacks.records import with_python
from pprofpy.collectors.scheduling.long_waits import LONG_WAIT, LONG_WAIT_LAYOUTS, long_wait
from pprofpy.collectors.scheduling.recorder import SwitchRecorder
from pprofpy.collectors.scheduling.waiting_threads import (
    BUCKET,
    WAITING_LAYOUTS,
    WAITING_THREAD,
    increase_since,
    thread_waits,
)
from pprofpy.collectors.scheduling.waits_by_stack import WAITS_BY_STACK_LAYOUTS, WaitsByStack
from pprofpy.errors import PprofpyError
from pprofpy.events.log import Batch, EventLog, Records, record_dtype
from pprofpy.events.switches import DATA_BYTES, TRACEPOINTS, Known, to_records
from pprofpy.model.latencies import Latencies
from pprofpy.model.latency import (
    Histogram,
    LatencyRecord,
    LongWait,
    ThreadWaits,
    histograms_by_owner,
    sum_by_name,
)
from pprofpy.model.recording import Recording
from pprofpy.model.trace import RECORD
from pprofpy.target import Target, procfs
from pprofpy.text import without_numbers

_U4, _U8 = np.dtype("u4"), np.dtype("u8")
_NAME = np.dtype([("tgid", "u4"), ("comm", "S16")])
SOURCE = ProbeSource("sched_latency.bpf.c", WAITING_LAYOUTS | LONG_WAIT_LAYOUTS | {"event": RECORD, "name": _NAME})
PYTHON_SOURCE = with_python(SOURCE.plus(WAITS_BY_STACK_LAYOUTS), PYTHON=1)

MOST_LONG_WAITS = 10_000
"""A window keeps at most this many long waits; further ones are counted."""

_KEEP_ENDED = 20_000
"""Ended threads keep rows of their own up to this number; beyond it, the shortest waiters are summed by name."""

_LOST = (
    "untracked_switches",
    "histogram_full",
    "long_waits",
    "trace_events",
    "children_full",
    "hidden_switches",
    "hidden_wake_ups",
    "stacks_full",
)
"""Why something could not be kept, in the order of the enum in sched_latency.bpf.c."""


@dataclass(frozen=True, slots=True)
class SchedOptions:
    """What to watch.

    Attributes:
        scope: Whose waits.
        threshold_ns: Hand over each wait from this on; 0 for none.
        trace: Keep the events themselves, in order.
        stacks: Also sum up by the Python stacks of those who waited and of those who woke them. Not for everybody.
    """

    scope: Scope = field(default_factory=Scope)
    threshold_ns: int = 0
    trace: bool = False
    stacks: bool = False


class SchedRecorder(SwitchRecorder):
    """Measures waits for a CPU. Those of the whole system count from `open` on, those of a process from `watch` on.

    Raises (`open` and `watch`):
        NotPossibleError: eBPF cannot work here.
        TargetError: There is no such process.
    """

    kind = "sched-latency"
    lost = _LOST
    wakeups: ClassVar = {"sched_wakeup_new": "on_wakeup_new", "sched_waking": "on_waking"}

    def __init__(self, options: SchedOptions) -> None:
        super().__init__(options.scope, walks=options.stacks)
        self._options = options
        self._new_events: list[Records] = []
        self._known = KnownThreads(self._known_thread)
        self._ended: list[ThreadWaits] = []
        self._folded: list[ThreadWaits] = []
        self._window = 1
        self._base: dict[int, ThreadWaits] = {}
        self._names, self._interpreters = ThreadNames(), Interpreters()
        self._long_waits: list[LongWait] = []
        self._long_wait_count = 0
        self._unreported_long_waits: list[LongWait] = []
        self._end_ns = 0

    def open(self) -> None:
        """Load the program and attach it."""
        options = self._options
        options.scope.check()
        program = self.load(PYTHON_SOURCE if options.stacks else SOURCE, self._values(), self._sizes())
        self._threads = program.table("threads", _U4, WAITING_THREAD)
        self._histogram = program.table("histogram", BUCKET, _U8)
        self._window_map = program.table("window", _U4, _U4)
        self._long_wait_events = program.events("long_waits", LONG_WAIT) if options.threshold_ns else None
        self._events = program.events("events", RECORD) if options.trace else None
        self._others = program.table("names", _U4, _NAME) if options.trace else self._threads
        self.open_stacks()
        self._by_stack = WaitsByStack(program, self._python) if self._python else None
        self._window_map.put(0, self._window)
        if self._pid:
            self._learn_first_names(self.watch_family(self._pid))
        self.load_functions()
        self.begin()
        self.attach()

    def watch(self, target: Target) -> None:
        """Measure a process, if it was to be named later."""
        if target.pid != self._pid:
            self._learn_first_names(self.watch_family(target.pid))

    def enter(self, pid: int) -> None:
        """Measure a process of a control group."""
        super().enter(pid)
        self._learn_first_names([pid])

    @property
    def without_python(self) -> str:
        """Why there are no Python stacks although they were wanted, in words; else empty."""
        return self._python.problem if self._python else ""

    def _values(self) -> dict[str, int]:
        options = self._options
        wanted = {"TRACE": int(options.trace), "THRESHOLD_NS": options.threshold_ns}
        return self.switch_constants() | wanted | ({"WAKER_STACKS": 1} if options.stacks else {})

    def _sizes(self) -> dict[str, int]:
        options = self._options
        unused = [] if options.trace else ["events", "names"]
        unused += [] if options.threshold_ns else ["long_waits"]
        return self.switch_sizes() | dict.fromkeys(unused, 0)

    @property
    def threshold_ns(self) -> int:
        """Waits of this many nanoseconds or more are reported one by one; 0: none."""
        return self._options.threshold_ns

    @staticmethod
    def now_ns() -> int:
        """The clock of all its times."""
        return time.monotonic_ns()

    # -- while it runs ---------------------------------------------------------------------------------------------

    def take_new(self) -> None:
        """Take in what the kernel must not keep for long."""
        self._take_events()
        events = np.sort(self._long_wait_events.read(), order="end_ns") if self._long_wait_events else ()
        if self._python:
            self._python.poll()  # the stacks of these events are there by now
        found = [self._explained(long_wait(event), event) for event in events]
        self._unreported_long_waits += found
        self._long_wait_count += len(found)
        self._long_waits += found[: max(MOST_LONG_WAITS - len(self._long_waits), 0)]

    @property
    def has_finished(self) -> bool:
        """Has the last window ended?"""
        return self._end_ns > 0

    def new_long_waits(self) -> list[LongWait]:
        """Return the waits above the threshold since the last call, oldest first."""
        found, self._unreported_long_waits = self._unreported_long_waits, []
        return found

    def _explained(self, wait: LongWait, event: Any) -> LongWait:
        """With Python's name of the thread, and stacks if they are wanted."""
        wait = replace(wait, name=self._names.name(wait.pid, wait.tid, wait.name))
        if not self._python:
            return wait
        frames = self._python.frames
        return replace(wait, stack=frames(int(event["stack"])), waker_stack=frames(int(event["waker_stack"])))

    def drain(self) -> None:
        """Move finished waits from the kernel's tables to user space."""
        tids, threads = self._threads.items()
        self._learn_names(tids, threads)
        if self._python and self._by_stack:
            in_use = self._by_stack.take()
            self._python.make_room(threads["stack"].tolist(), threads["wakeup"]["stack"].tolist(), *in_use)
        dead = threads["track"]["is_dead"] == 1
        if dead.any():
            self._take_events()  # while their threads are still known
            self._move_out(tids[dead], threads[dead])

    def window(self) -> Recording:
        """Return the waits since the last window."""
        self.take_new()
        self.drain()
        old_window, self._window = self._window, self._window + 1
        self._window_map.put(0, self._window)
        return self._take_record(old_window, self.recorded_until_ns()).to_recording({})

    def _take_record(self, window: int, end_ns: int) -> Latencies:
        """Return the window's sums so far and reset them for the next window."""
        live = self._read(window)
        stacks = self._by_stack.found({one.tid: one for one in live}) if self._by_stack else ()
        everyone = *self._ended, *self._folded, *(increase_since(one, self._base.get(one.tid)) for one in live)
        record = LatencyRecord(
            tuple(one for one in everyone if self._end_ns or one.waits.count or one.waiting_ns),
            *self.begin_window(end_ns),
            self._options.scope.is_everybody,
            self.collected_since(),
            stacks,
        )
        found = Latencies(record, (), tuple(self._long_waits), self._long_wait_count)
        self._base = {one.tid: one for one in live}
        self._ended, self._folded = [], []
        self._long_waits, self._long_wait_count = [], 0
        return found

    # -- at its end ------------------------------------------------------------------------------------------------

    def finish(self) -> Recording:
        """End the recording and return the waits since the last window."""
        end_ns = self._end_ns = self.recorded_until_ns()
        self.program.detach()  # takes a while on a busy machine, one function after the other
        self.take_new()
        if self._by_stack:
            self._by_stack.take_rest()
        return self._take_record(self._window, end_ns).to_recording({})

    # -- the events themselves ---------------------------------------------------------------------------------------

    @property
    def log(self) -> EventLog:
        """What is in the batches of `new_events`."""
        return EventLog(TRACEPOINTS, DATA_BYTES, self.start_ns, self.time_ns)

    def new_events(self) -> Batch:
        """Return the events since the last call, for who keeps them in order; to be called after each poll."""
        self.take_new()
        events, self._new_events = self._new_events, []
        records = np.concatenate([*events, np.zeros(0, record_dtype(DATA_BYTES))])
        return Batch(records, threads=self._known.take_new())

    def _take_events(self) -> None:
        if self._events is not None and len(events := self._events.read()):
            self._new_events.append(to_records(np.sort(events, order="ts_ns"), self._known))

    def _known_thread(self, tid: int) -> tuple[Known, str]:
        """What is known of a thread now, and how Python calls it."""
        if tid == OUTSIDE:
            return Known(0, b"[outside]"), ""
        with suppress(PprofpyError):
            thread = self._threads.get(tid)
            track = thread["track"]
            return Known(int(track["tgid"]), bytes(track["comm"]), True), self._name(thread, tid)
        with suppress(PprofpyError):
            other = self._others.get(tid)
            return Known(int(other["tgid"]), bytes(other["comm"])), ""
        return Known(), ""

    # -- reading the kernel's tables ---------------------------------------------------------------------------------

    def _read(self, window: int) -> list[ThreadWaits]:
        """All threads in the tables: counts of the whole recording, longest waits of one window."""
        return self._thread_waits(*self._threads.items(), window)

    def _thread_waits(self, tids: NDArray[Any], threads: NDArray[Any], window: int) -> list[ThreadWaits]:
        histograms = self._histograms(tids)
        self._learn_names(tids, threads)
        now_ns = self._end_ns or self.recorded_until_ns()
        return [
            thread_waits(tid, self._name(thread, tid), thread, histograms, window, now_ns)
            for tid, thread in zip(tids.tolist(), threads, strict=True)
        ]

    def _learn_names(self, tids: NDArray[Any], threads: NDArray[Any]) -> None:
        """Python's; of the whole system it is processes that are shown."""
        if not self._options.scope.is_everybody:
            pids = threads["track"]["tgid"].tolist()
            self._names.learn_all(self._interpreters.of(set(pids)), zip(pids, tids.tolist(), strict=True))

    def _learn_first_names(self, pids: list[int]) -> None:
        """Before the first event is told, whatever comes then."""
        threads = []
        for pid in pids:
            with suppress(OSError):
                threads += [(pid, tid) for tid in procfs.tids(pid)]
        self._names.learn_all(self._interpreters.of(set(pids)), threads)

    def _name(self, thread: Any, tid: int) -> str:
        """What to call a thread: as Python does, or else as the kernel does."""
        return self._names.name(int(thread["track"]["tgid"]), tid, comm_text(thread["track"]["comm"]))

    def _histograms(self, tids: NDArray[Any]) -> dict[tuple[int, int], Histogram]:
        """By tid and kind (1: preempted)."""
        keys, counts = self._histogram.items()
        wanted = np.isin(keys["tid"], tids)
        keys, counts = keys[wanted], counts[wanted].astype(np.int64)
        owners = keys["tid"].astype(np.int64) * 2 + keys["was_preempted"]
        found = histograms_by_owner(owners, keys["index"].astype(np.int64), counts)
        return {(owner >> 1, owner & 1): histogram for owner, histogram in found.items()}

    def _move_out(self, tids: NDArray[Any], threads: NDArray[Any]) -> None:
        gone = self._thread_waits(tids, threads, self._window)
        keys, _ = self._histogram.items()
        self._histogram.delete(keys[np.isin(keys["tid"], tids)])
        self._threads.delete(tids)
        if self._by_stack:
            self._by_stack.move_out({one.tid: one for one in gone})
        self._ended += [increase_since(one, self._base.pop(one.tid, None)) for one in gone]
        if len(self._ended) > _KEEP_ENDED:
            self._fold()

    def _fold(self) -> None:
        """Sum up the half of the ended threads that waited least, by name, whatever numbers are in it."""
        self._ended.sort(key=lambda one: one.woken.total_ns + one.preempted.total_ns)
        alike = [replace(one, name=without_numbers(one.name)) for one in self._ended[: _KEEP_ENDED // 2]]
        self._folded = sum_by_name([*self._folded, *alike])
        del self._ended[: _KEEP_ENDED // 2]
