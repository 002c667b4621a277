"""The ordered twin of Profile: a Trace of scheduling events, each with its time, its CPU and its threads.

Stored as one array of fixed-size records, in order of time, with a table of names beside it: ten million events are
320 MB, not ten million objects. `Trace.events()` gives them one by one, as the nouns below.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.latency import RUN_QUEUE_TYPES
from pprofpy.model.profile import Collection, Frame, Function, Label, Mapping, Profile, ValueType


class Kind(IntEnum):
    """What a record tells of."""

    SWITCH = 0
    WAKEUP = 1
    NEW = 2


class Context(IntEnum):
    """What a wake-up came from: a thread, or an interrupt that only borrowed one."""

    TASK = 0
    IRQ = 1
    SOFTIRQ = 2


RECORD = np.dtype(
    [
        ("ts_ns", "u8"),  # monotonic clock
        ("wait_ns", "u8"),  # switch: how long the thread switched in had waited for the CPU; 0 if unknown
        ("from_tid", "u4"),  # switch: the thread switched out; wake-up: the waker, 0 for an interrupt
        ("to_tid", "u4"),  # switch: the thread switched in; wake-up: the wakee
        ("cpu", "u2"),
        ("kind", "u1"),  # Kind
        ("context", "u1"),  # wake-up: Context; switch: 1 if the thread switched in had been preempted
        ("state", "u4"),  # switch: the state that the thread switched out goes into; 0 means runnable
    ]
)
"""One event. Source: `struct event` in collectors/probes/sched_latency.bpf.c, checked when that is compiled."""

_STATES = {0: "R", 1: "S", 2: "D", 4: "T", 8: "t", 16: "X", 32: "Z", 64: "P", 128: "X"}
IDLE = 0x402
"""TASK_IDLE: of threads of the kernel that wait for nobody in particular."""

_PORTION = 10_000


class TracedThread(NamedTuple):
    """Who a tid is. `watched`: the recording follows it, so all its switches and wake-ups are there."""

    pid: int
    name: str
    watched: bool


class Switch(NamedTuple):
    """A CPU passes from one thread to another; `state` (R, S, D, ...) is what becomes of the first."""

    ts_ns: int
    cpu: int
    tid: int
    next_tid: int
    state: str


class Wakeup(NamedTuple):
    """A thread becomes runnable; `waker_tid` is 0 if `context` is an interrupt. `is_new`: it has just been created."""

    ts_ns: int
    cpu: int
    tid: int
    waker_tid: int
    context: Context
    is_new: bool


class RunqueueWait(NamedTuple):
    """A thread gets a CPU (at `ts_ns`) after it had been runnable for `wait_ns`."""

    ts_ns: int
    cpu: int
    tid: int
    wait_ns: int
    was_preempted: bool


Event = Switch | Wakeup | RunqueueWait


@dataclass(frozen=True, slots=True, repr=False)
class Trace:
    """Scheduling events in order of time.

    Attributes:
        records: `RECORD` (n,), sorted by `ts_ns`.
        threads: Who is who.
        start_ns: When the recording began, on the monotonic clock, as all times here.
        time_ns: The same moment in Unix time.
        duration_ns: How long it lasted.
        collection: How it was recorded, and how many events were dropped.
    """

    records: NDArray[Any]
    threads: dict[int, TracedThread] = field(default_factory=dict)
    start_ns: int = 0
    time_ns: int = 0
    duration_ns: int = 0
    collection: Collection = field(default_factory=Collection)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} events, {len(self.threads)} threads>"

    def events(self) -> Iterator[Event]:
        """One by one, in order. A switch that ends a wait is preceded by its RunqueueWait."""
        for ts_ns, wait_ns, from_tid, to_tid, cpu, kind, context, state in self._rows():
            if kind != Kind.SWITCH:
                yield Wakeup(ts_ns, cpu, to_tid, from_tid, Context(context), kind == Kind.NEW)
                continue
            if wait_ns:
                yield RunqueueWait(ts_ns, cpu, to_tid, wait_ns, bool(context))
            yield Switch(ts_ns, cpu, from_tid, to_tid, state_letter(state))

    def _rows(self) -> Iterator[tuple[int, ...]]:
        """The records as numbers; portion by portion, since these take ten times the space."""
        for first in range(0, len(self), _PORTION):
            yield from self.records[first : first + _PORTION].tolist()

    def waits(self) -> NDArray[Any]:
        """The records (RECORD) of switches that ended a wait for the CPU, in order of time."""
        records = self.records
        chosen: NDArray[Any] = records[(records["kind"] == Kind.SWITCH) & (records["wait_ns"] > 0)]
        return chosen

    def to_profile(self) -> Profile:
        """The one bridge to a Profile: waits for the CPU by thread. Order and wake-ups are lost on it."""
        builder = ProfileBuilder(RUN_QUEUE_TYPES, Mapping("[kernel]", has_functions=True))
        waits = self.waits()
        groups, place = np.unique(waits[["to_tid", "context"]], return_inverse=True)
        counts = np.bincount(place, minlength=len(groups))
        times = np.zeros(len(groups), np.int64)
        np.add.at(times, place, waits["wait_ns"].astype(np.int64))
        for (tid, preempted), count, total_ns in zip(groups.tolist(), counts.tolist(), times.tolist(), strict=True):
            thread = self.threads.get(tid, TracedThread(tid, f"thread {tid}", True))
            process = self.threads.get(thread.pid, thread)
            kind = "preempted" if preempted else "woken"
            frames = (f"[{kind}]", f"{thread.name} ({tid})", f"{process.name} ({thread.pid})")
            labels = (
                Label("state", kind),
                Label("thread", thread.name),
                Label("tid", tid),
                Label("pid", thread.pid),
            )
            builder.add([Frame(Function(frame)) for frame in frames], (count, total_ns), labels)
        profile = builder.build()
        profile.period_type, profile.period = ValueType("waits", "count"), 1
        profile.time_ns, profile.duration_ns = self.time_ns, self.duration_ns
        profile.collection = self.collection
        return profile


def state_letter(state: int) -> str:
    """A task state as `ps` writes it; R for runnable. Source: `task_index_to_char` in Linux, include/linux/sched.h."""
    if state & IDLE == IDLE:
        return "I"
    reported = state & 0xFF
    return _STATES.get(reported & -reported, "?") if reported or not state else "?"
