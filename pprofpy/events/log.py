"""The nouns of event tracing: EventLog (what was watched), Batch (some of what happened), CallStats (sums of it).

Events are fixed-size records in NumPy arrays, as the kernel's programs write them; nothing is put into words until
somebody wants to read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pprofpy import arch
from pprofpy.events.syscalls import (
    BEGAN_UNSEEN,
    HAS_FD_NAME,
    IS_32_BIT,
    MAX_ERRNO,
    NEVER_RETURNS,
    STRING_BYTES,
    syscall,
)
from pprofpy.events.tracepoint import Tracepoint, as_text
from pprofpy.model.latency import Histogram
from pprofpy.model.profile import Collection

KNOWN_MACHINES = frozenset(arch.MACHINES)
FIRST_MACHINE = arch.FIRST
"""Where recordings that do not tell it were made."""

Records = NDArray[Any]

BY_OTHERS = 16
"""In the flags of an event at a tracepoint: somebody else does it to a watched thread. Source: RECORD_BY_OTHERS."""

CONTEXT_SHIFT = 8
"""From this bit on: the trace.Context of an event that names a thread. Source: RECORD_CONTEXT_SHIFT."""

FD_NAME_BYTES = 48

HEAD = np.dtype(
    [
        ("ts_ns", "u8"),  # monotonic clock; of a call: when it began
        ("tgid", "u4"),
        ("tid", "u4"),
        ("cpu", "u2"),
        ("event", "u2"),  # place in EventLog.tracepoints, or the system call's number
        ("flags", "u4"),  # of a call: see events.syscalls; else BY_OTHERS or 0
        ("comm", "S16"),
        ("stack", "u8"),  # the Python stack of whoever did it: see Batch.stacks; 0 if there is none
    ]
)
CALL = np.dtype(
    [
        ("head", HEAD),
        ("duration_ns", "u8"),
        ("result", "i8"),
        ("args", "u8", (6,)),
        ("inode", "u8"),  # of the file behind the first argument; 0 if that is no open file descriptor
        ("fd_name", f"V{FD_NAME_BYTES}"),  # its name (the last part of its path), NUL-terminated
    ]
)
CALL_WITH_STRINGS = np.dtype([("call", CALL), ("strings", f"V{STRING_BYTES}", (2,))])


def record_dtype(data_bytes: int) -> np.dtype[Any]:
    """An event at a tracepoint, with this much of what the kernel recorded of it."""
    return np.dtype([("head", HEAD), ("data", f"V{data_bytes}")])


class FdKey(NamedTuple):
    """Which file a process means by a descriptor: the number alone is soon used for another one."""

    pid: int
    fd: int
    inode: int


@dataclass(frozen=True, slots=True)
class EventLog:
    """What was watched, and when.

    Attributes:
        tracepoints: `HEAD.event` of a record is a place in here.
        data_bytes: What was kept of each record.
        start_ns: The beginning, on the monotonic clock as all times here.
        time_ns: The same moment in Unix time.
        machine: What the kernel calls the machine: numbers of system calls are its own.
    """

    tracepoints: tuple[Tracepoint, ...] = ()
    data_bytes: int = 8
    start_ns: int = 0
    time_ns: int = 0
    machine: str = field(default_factory=arch.machine)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of a stretch of time. Each array is in order of time (of calls: when they returned).

    Attributes:
        records: Events at tracepoints, `record_dtype(...)`.
        calls: System calls without strings among their arguments, `CALL`.
        calls_with_strings: The others, `CALL_WITH_STRINGS`.
        fd_paths: Full paths of files, as far as they were new and could be found out.
        symbols: Names of kernel addresses, as far as they were new.
        stacks: Python stacks in words, innermost function first, by `HEAD.stack`, as far as they were new.
        threads: Watched threads, as far as they were new: tid -> process, and name as Python has it.
    """

    records: Records = field(default_factory=lambda: np.zeros(0, record_dtype(8)))
    calls: Records = field(default_factory=lambda: np.zeros(0, CALL))
    calls_with_strings: Records = field(default_factory=lambda: np.zeros(0, CALL_WITH_STRINGS))
    fd_paths: Mapping[FdKey, str] = field(default_factory=dict)
    symbols: Mapping[int, str] = field(default_factory=dict)
    stacks: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    threads: Mapping[int, tuple[int, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records) + len(self.calls) + len(self.calls_with_strings)

    def all_calls(self) -> Records:
        """Both kinds of calls, without the strings."""
        return np.concatenate([self.calls, self.calls_with_strings["call"]])

    def order(self) -> NDArray[np.int64]:
        """The events in order of time, as places in records + calls + calls_with_strings."""
        ends = np.concatenate([self.records["head"]["ts_ns"], known_at_ns(self.all_calls())])
        return np.argsort(ends, kind="stable")

    def sliced(self, size: int) -> Iterator[Batch]:
        """The same in portions of at most `size` events, in order of time."""
        if len(self) <= size:
            yield self
            return
        order, first_call = self.order(), len(self.records)
        first_with_strings = first_call + len(self.calls)
        for start in range(0, len(order), size):
            part = np.sort(order[start : start + size])
            at_call, at_strings = np.searchsorted(part, [first_call, first_with_strings])
            yield Batch(
                self.records[part[:at_call]],
                self.calls[part[at_call:at_strings] - first_call],
                self.calls_with_strings[part[at_strings:] - first_with_strings],
                self.fd_paths,
                self.symbols,
                self.stacks,
                self.threads,
            )

    def where(self, *, tids: frozenset[int] | None = None, slower_than_ns: int = 0) -> Batch:
        """Only some of the events: of these threads, and of the calls those that took long."""

        def keep(head: Records, duration_ns: Records | None) -> NDArray[np.bool_]:
            kept = np.ones(len(head), np.bool_)
            if tids is not None:
                kept &= np.isin(head["tid"], sorted(tids))
            if slower_than_ns and duration_ns is not None:
                kept &= (duration_ns >= slower_than_ns) & (head["flags"] & (BEGAN_UNSEEN | NEVER_RETURNS) == 0)
            return kept

        with_strings = self.calls_with_strings["call"]
        return Batch(
            self.records[keep(self.records["head"], None)],
            self.calls[keep(self.calls["head"], self.calls["duration_ns"])],
            self.calls_with_strings[keep(with_strings["head"], with_strings["duration_ns"])],
            self.fd_paths,
            self.symbols,
            self.stacks,
            self.threads,
        )


def known_at_ns(calls: Records) -> NDArray[np.uint64]:
    """When calls returned, one for each, in nanoseconds of the monotonic clock."""
    return np.asarray(calls["head"]["ts_ns"] + calls["duration_ns"], np.uint64)


def heads(events: Records) -> Records:
    """The HEAD of each event, of any of the three types; a view of it."""
    return _without_strings(events)["head"]


def times_ns(events: Records) -> NDArray[np.uint64]:
    """When events were known, in nanoseconds of the monotonic clock: of calls, when they returned."""
    plain = _without_strings(events)
    return known_at_ns(plain) if "duration_ns" in (plain.dtype.names or ()) else plain["head"]["ts_ns"]


def _without_strings(events: Records) -> Records:
    """Calls without their strings; a view of them. Other events as they are."""
    return events["call"] if "call" in (events.dtype.names or ()) else events


@dataclass(frozen=True, slots=True)
class EventStats:
    """How often one thread met one event, and of system calls how long they took.

    Attributes:
        pid, tid, thread: Who; the name is that of the last time.
        event: A system call's name, or `group:event` of a tracepoint.
        last_ns: When it last happened, on the monotonic clock.
        is_call: Only then does the rest mean anything.
        histogram: Of the durations.
    """

    pid: int
    tid: int
    thread: str
    event: str
    count: int
    last_ns: int = 0
    is_call: bool = True
    errors: int = 0
    total_ns: int = 0
    min_ns: int = 0
    max_ns: int = 0
    histogram: Histogram = field(default_factory=Histogram)


@dataclass(frozen=True, slots=True)
class EventSummary:
    """The sums of a recording.

    Attributes:
        stats: In no order.
        duration_ns: How long was watched.
        collection: How, and what was lost.
    """

    stats: tuple[EventStats, ...]
    duration_ns: int
    collection: Collection = field(default_factory=Collection)


@dataclass(slots=True)
class _Sum:
    """One thread's events of one kind, while they are summed up."""

    event: str
    is_call: bool
    thread: str = ""
    count: int = 0
    errors: int = 0
    last_ns: int = 0
    durations_ns: list[Records] = field(default_factory=list)

    def add(self, heads: Records) -> None:
        last = heads[np.argmax(heads["ts_ns"])]
        self.thread, self.last_ns = as_text(bytes(last["comm"])), int(last["ts_ns"])
        self.count += len(heads)

    def add_calls(self, calls: Records) -> None:
        self.add(calls["head"])
        self.errors += int(((calls["result"] < 0) & (calls["result"] >= -MAX_ERRNO)).sum())
        self.durations_ns.append(calls["duration_ns"])

    def stats(self, pid: int, tid: int) -> EventStats:
        if not self.is_call:
            return EventStats(pid, tid, self.thread, self.event, self.count, self.last_ns, is_call=False)
        times = np.concatenate(self.durations_ns)
        return EventStats(
            pid,
            tid,
            self.thread,
            self.event,
            self.count,
            self.last_ns,
            errors=self.errors,
            total_ns=int(times.sum()),
            min_ns=int(times.min()),
            max_ns=int(times.max()),
            histogram=Histogram.of(times.tolist()),
        )


def summarize(log: EventLog, batches: Iterable[Batch]) -> list[EventStats]:
    """Sum up recorded events, as the kernel does for those that were not kept."""
    sums: dict[tuple[int, int, str], _Sum] = {}

    def of(head: Records, name: str, *, is_call: bool) -> _Sum:
        return sums.setdefault((int(head["tgid"]), int(head["tid"]), name), _Sum(name, is_call))

    for batch in batches:
        heads = batch.records["head"]
        for places in _by_thread_and_event(heads):
            head = heads[places[0]]
            of(head, log.tracepoints[head["event"]].name, is_call=False).add(heads[places])
        calls = batch.all_calls()
        calls = calls[calls["head"]["flags"] & BEGAN_UNSEEN == 0]
        for places in _by_thread_and_event(calls["head"]):
            head = calls["head"][places[0]]
            name = call_name(int(head["event"]), int(head["flags"]), log.machine)
            of(head, name, is_call=True).add_calls(calls[places])
    return [one.stats(pid, tid) for (pid, tid, _), one in sums.items()]


def _by_thread_and_event(heads: Records) -> Iterator[NDArray[np.int64]]:
    """The places of the events of each thread and kind."""
    order = np.lexsort((heads["event"], heads["tid"], heads["tgid"]))
    keys = heads[order][["tgid", "tid", "event"]]
    yield from (part for part in np.split(order, np.flatnonzero(keys[1:] != keys[:-1]) + 1) if len(part))


def call_name(number: int, flags: int, machine: str) -> str:
    """The name of a recorded call. Those of 32-bit programs have numbers of their own, which we do not name."""
    return f"{arch.of(machine).title_32_bit}_syscall_{number}" if flags & IS_32_BIT else syscall(number, machine).name


def has_fd_name(calls: Records) -> NDArray[np.bool_]:
    """For each call: does it know what its first argument stands for?"""
    return np.asarray(calls["head"]["flags"] & HAS_FD_NAME != 0, np.bool_)
