"""The nouns of latency: Histogram, Waits, ThreadWaits, and the LatencyRecord that holds them.

A Profile cannot hold a distribution. This is its companion for waiting times: how often each thread waited, how long in
all, how long at most, and how the waits are spread, in buckets so fine that quantiles are good to 3 percent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import (
    KERNEL_MAPPING,
    PYTHON_MAPPING,
    Collection,
    Frame,
    Function,
    Label,
    LabelSet,
    Profile,
    Stack,
    ValueType,
)
from pprofpy.model.stack_table import Ints
from pprofpy.model.waits import chain

RUN_QUEUE_TYPES = (ValueType("waits", "count"), ValueType("runqueue", "nanoseconds"))

_SUB_BITS = 5
_SUB = 1 << _SUB_BITS
BUCKETS = 64 << _SUB_BITS
"""How many buckets a histogram may have: enough for any 64-bit time."""


def bucket_edges(indices: Ints) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper edges (ns) of log-linear buckets: 32 to each power of two, exact below 32 ns.

    Source: `bucket_index` in collectors/probes/sched_latency.bpf.c, which this mirrors.
    """
    indices = np.asarray(indices, np.int64)
    shift = np.maximum((indices >> _SUB_BITS) - 1, 0)
    mantissa = np.where(indices < _SUB, indices, _SUB + (indices & (_SUB - 1)))
    lower = mantissa.astype(np.float64) * 2.0**shift
    return lower, lower + 2.0**shift


def bucket_of(wait_ns: int) -> int:
    """The bucket that a wait falls into."""
    if wait_ns < _SUB:
        return wait_ns
    log = wait_ns.bit_length() - 1
    return (log - _SUB_BITS + 1 << _SUB_BITS) | (wait_ns >> (log - _SUB_BITS) & (_SUB - 1))


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many waits fell into each bucket.

    Attributes:
        indices: int64 (n,): bucket numbers, rising.
        counts: int64 (n,): waits in each, more than 0.
    """

    indices: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, waits_ns: Iterable[int]) -> Histogram:
        """Count single waits."""
        indices, counts = np.unique([bucket_of(wait) for wait in waits_ns], return_counts=True)
        return cls(indices.astype(np.int64), counts.astype(np.int64))

    @property
    def total(self) -> int:
        """All waits counted."""
        return int(self.counts.sum())

    def merge(self, others: Iterable[Histogram]) -> Histogram:
        """This and others as one."""
        everyone = [self, *others]
        indices = np.concatenate([one.indices for one in everyone])
        counts = np.concatenate([one.counts for one in everyone])
        return _summed(indices, counts)

    def minus(self, earlier: Histogram) -> Histogram:
        """Return the increase of the counts since `earlier`, a state of this histogram."""
        return _summed(np.concatenate([self.indices, earlier.indices]), np.concatenate([self.counts, -earlier.counts]))

    def quantiles_ns(self, shares: Sequence[float], max_ns: int) -> list[int]:
        """The waits that these shares (0 to 1) of all waits do not exceed; linear within a bucket, 0 if there is none.

        Args:
            shares: Such as 0.99.
            max_ns: The longest wait: no quantile lies above it.
        """
        if not len(self.counts):
            return [0] * len(shares)
        lower, upper = bucket_edges(self.indices)
        reached = np.cumsum(self.counts)
        ranks = np.asarray(shares) * reached[-1]
        place = np.minimum(np.searchsorted(reached, ranks), len(reached) - 1)
        within = (ranks - (reached[place] - self.counts[place])) / self.counts[place]
        values = lower[place] + within * (upper[place] - lower[place])
        return [int(value) for value in np.minimum(values, max_ns)]

    def octaves(self) -> list[tuple[int, int]]:
        """Counts by powers of two: (exponent, count) for waits in [2**exponent, 2**(exponent + 1)) ns, without gaps."""
        if not len(self.counts):
            return []
        lower, _ = bucket_edges(self.indices)
        exponents = np.log2(np.maximum(lower, 1)).astype(np.int64)
        counts = np.bincount(exponents - exponents[0], weights=self.counts)
        return [(int(exponents[0]) + i, int(count)) for i, count in enumerate(counts)]


def histograms_by_owner(owners: Ints, indices: Ints, counts: Ints) -> dict[int, Histogram]:
    """Sort buckets of many histograms into the histograms.

    Args:
        owners: int64 (n,): which histogram each bucket belongs to.
        indices: int64 (n,): each bucket's number.
        counts: int64 (n,): how many it holds.
    """
    order = np.lexsort((indices, owners))
    owners, indices, counts = owners[order], indices[order], counts[order]
    found, starts = np.unique(owners, return_index=True)
    parts = zip(np.split(indices, starts[1:]), np.split(counts, starts[1:]), strict=True)
    return {owner: Histogram(*part) for owner, part in zip(found.tolist(), parts, strict=False)}


def _summed(indices: Ints, counts: Ints) -> Histogram:
    buckets, place = np.unique(indices, return_inverse=True)
    sums = np.zeros(len(buckets), np.int64)
    np.add.at(sums, place, counts)
    return Histogram(buckets[sums > 0], sums[sums > 0])


@dataclass(frozen=True, slots=True)
class Waits:
    """All waits of one kind. Times are nanoseconds; `max_at_ns` is on the monotonic clock (0: no wait)."""

    count: int = 0
    total_ns: int = 0
    max_ns: int = 0
    max_at_ns: int = 0
    histogram: Histogram = field(default_factory=Histogram)

    @property
    def avg_ns(self) -> int:
        """The mean; 0 without waits."""
        return round(self.total_ns / self.count) if self.count else 0

    def quantiles_ns(self, shares: Sequence[float]) -> list[int]:
        """See `Histogram.quantiles_ns`."""
        return self.histogram.quantiles_ns(shares, self.max_ns)


def merge_waits(many: Iterable[Waits]) -> Waits:
    """Waits of several threads or kinds as one."""
    waits = list(many)
    longest = max(waits, key=lambda one: one.max_ns, default=Waits())
    return Waits(
        sum(one.count for one in waits),
        sum(one.total_ns for one in waits),
        longest.max_ns,
        longest.max_at_ns,
        Histogram().merge(one.histogram for one in waits),
    )


@dataclass(frozen=True, slots=True)
class ThreadWaits:
    """One thread's waits for a CPU.

    Attributes:
        pid, tid, name: Who.
        woken: Waits after it had been blocked (it slept of its own will).
        preempted: Waits after it had been switched out while it could run on.
        migrations: How often it ran on another CPU than before.
        waiting_ns: How long it has been waiting, if it is now; such a wait is not among the others.
        comm: What the kernel calls it, if that is something else.
    """

    pid: int
    tid: int
    name: str
    woken: Waits = Waits()
    preempted: Waits = Waits()
    migrations: int = 0
    waiting_ns: int = 0
    comm: str = ""

    @property
    def waits(self) -> Waits:
        """Both kinds together."""
        return merge_waits((self.woken, self.preempted))


@dataclass(frozen=True, slots=True)
class StackWaits:
    """The waits of one thread in one place. Times are nanoseconds.

    Attributes:
        pid, tid, name: Who; 0 for a sum over several.
        was_preempted: It had been switched out while it could run on; otherwise it had been woken.
        stack: Python's, leaf-first, when it gave up its CPU; `()` if there was none.
        waker_stack: Python's of the thread that woke it; `()` if there was none.
    """

    pid: int
    tid: int
    name: str
    was_preempted: bool
    stack: Stack
    waker_stack: Stack
    count: int
    total_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True)
class CpuSlice:
    """A time during which one thread had a CPU."""

    tid: int
    pid: int
    name: str
    duration_ns: int


@dataclass(frozen=True, slots=True)
class LongWaitRow:
    """One wait above the threshold, as a row of a table.

    Attributes:
        end_ns: When the thread got the CPU (monotonic clock).
        wait_ns: How long it had waited.
        pid, tid, name: Who waited.
        cpu: Where it ran in the end.
        cpu_before: Where it had run before; -1 if unknown.
        was_preempted: It had been switched out while it could run on; otherwise it had been woken.
        waker: Who woke it, in words; "irq" or "softirq" if an interrupt did. Empty if preempted or unknown.
        waker_tid: The waker's thread; 0 if there is none.
        unknown_ns: The part of the wait during which nobody knows who had `cpu`.
        stack, waker_stack: Python's, leaf-first, of the thread and of its waker; `()` if unknown.
    """

    end_ns: int
    wait_ns: int
    pid: int
    tid: int
    name: str
    cpu: int
    cpu_before: int
    was_preempted: bool
    waker: str
    waker_tid: int
    unknown_ns: int = 0
    stack: Stack = ()
    waker_stack: Stack = ()


@dataclass(frozen=True, slots=True)
class LongWait(LongWaitRow):
    """One wait above the threshold.

    Attributes:
        ran: Who had `cpu` meanwhile, in order.
    """

    ran: tuple[CpuSlice, ...] = ()


@dataclass(frozen=True, slots=True)
class LatencyRecord:
    """The waits of many threads over a stretch of time.

    Attributes:
        threads: In no order.
        start_ns: When it began, on the monotonic clock, as all times here.
        time_ns: The same moment in Unix time.
        duration_ns: How long it lasted.
        per_process: Nobody in particular was watched: views show processes, not threads.
        collection: How it was recorded and what was lost.
        stacks: The waits by Python stack, if --stacks was given.
    """

    threads: tuple[ThreadWaits, ...]
    start_ns: int
    time_ns: int
    duration_ns: int
    per_process: bool = False
    collection: Collection = field(default_factory=Collection)
    stacks: tuple[StackWaits, ...] = ()

    def to_profile(self) -> Profile:
        """Counts and times as a profile; distributions stay behind.

        Stacks are [how the wait began, thread, process], leaf-first; the kernel's own stacks are not recorded. If
        there are Python's stacks, these stand below how the wait began, with the waker's above it.
        """
        builder = ProfileBuilder(RUN_QUEUE_TYPES, KERNEL_MAPPING)
        if self.stacks:
            self._add_stacks(builder)
        else:
            self._add_threads(builder)
        profile = builder.build()
        profile.period_type, profile.period = ValueType("waits", "count"), 1
        profile.time_ns, profile.duration_ns = self.time_ns, self.duration_ns
        profile.collection = self.collection
        return profile

    def _add_threads(self, builder: ProfileBuilder) -> None:
        processes = process_names(self.threads)
        for thread in self.threads:
            for kind, waits in (("woken", thread.woken), ("preempted", thread.preempted)):
                if waits.count:
                    frames = (f"[{kind}]", f"{thread.name} ({thread.tid})", f"{processes[thread.pid]} ({thread.pid})")
                    stack = [Frame(Function(frame)) for frame in frames]
                    builder.add(stack, (waits.count, waits.total_ns), _labels(kind, thread))

    def _add_stacks(self, builder: ProfileBuilder) -> None:
        """All of them, and as one sample of each kind what they lack (the kernel's table was full)."""
        missing = {
            "woken": [sum(one.woken.count for one in self.threads), sum(one.woken.total_ns for one in self.threads)],
            "preempted": [
                sum(one.preempted.count for one in self.threads),
                sum(one.preempted.total_ns for one in self.threads),
            ],
        }
        for one in self.stacks:
            kind = "preempted" if one.was_preempted else "woken"
            stack: Stack = (Frame(Function(f"[{kind}]")), *(one.stack or (Frame(Function("[no Python stack]")),)))
            stack = chain(stack, one.waker_stack) if one.waker_stack else stack
            locations = tuple(
                builder.frame_location(frame, PYTHON_MAPPING if frame.function.filename else None) for frame in stack
            )
            builder.add_locations(locations, (one.count, one.total_ns), _labels(kind, one))
            missing[kind][0] -= one.count
            missing[kind][1] -= one.total_ns
        for kind, values in missing.items():
            if values[0] > 0:
                builder.add([Frame(Function(f"[{kind}]")), Frame(Function("[stack lost]"))], values)


def _labels(kind: str, who: ThreadWaits | StackWaits) -> LabelSet:
    return Label("state", kind), Label("thread", who.name), Label("tid", who.tid), Label("pid", who.pid)


def sum_stacks(stacks: Iterable[StackWaits]) -> list[StackWaits]:
    """Merge equal stacks of threads with equal names; pid and tid become 0."""
    sums: dict[tuple[str, bool, Stack, Stack], StackWaits] = {}
    for one in stacks:
        key = one.name, one.was_preempted, one.stack, one.waker_stack
        sums[key] = add_stack_waits(sums.get(key, StackWaits(0, 0, *key, 0, 0, 0)), one)
    return list(sums.values())


def add_stack_waits(one: StackWaits, other: StackWaits) -> StackWaits:
    """The waits of both, for whom and where those of `one` are."""
    count, total_ns = one.count + other.count, one.total_ns + other.total_ns
    return replace(one, count=count, total_ns=total_ns, max_ns=max(one.max_ns, other.max_ns))


def process_names(threads: Iterable[ThreadWaits]) -> dict[int, str]:
    """What to call each process: the name of its main thread, or of any thread if that was not seen."""
    names: dict[int, str] = {}
    for thread in threads:
        if thread.tid == thread.pid or thread.pid not in names:
            names[thread.pid] = thread.comm or thread.name
    return names


def sum_by_name(threads: Iterable[ThreadWaits]) -> list[ThreadWaits]:
    """Merge threads with equal process name or thread name; pid and tid become 0."""
    groups: dict[str, list[ThreadWaits]] = {}
    for thread in threads:
        groups.setdefault(thread.name, []).append(thread)
    return [merge_threads(0, 0, name, group) for name, group in groups.items()]


def merge_threads(pid: int, tid: int, name: str, threads: Sequence[ThreadWaits]) -> ThreadWaits:
    """Several threads as one row; it waits as long as the one that waits longest."""
    return ThreadWaits(
        pid,
        tid,
        name,
        merge_waits(one.woken for one in threads),
        merge_waits(one.preempted for one in threads),
        sum(one.migrations for one in threads),
        max((one.waiting_ns for one in threads), default=0),
    )
