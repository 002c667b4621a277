"""The nouns of the interpreter lock (GIL): who waited for it, who held it, and whom that blocked.

A Profile holds one stack for each sample. A wait has two: the waiter's, and the holder's. `GilRecord.to_profile()` puts
one upon the other; this record keeps them apart, with the times of holding that blocked nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import add
from typing import TypeVar

from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.label_text import from_text
from pprofpy.model.profile import Collection, Frame, Function, Label, Profile, Stack, ValueType
from pprofpy.model.recording import Option, Recording
from pprofpy.model.table import Table

GIL_TYPES = (ValueType("contentions", "count"), ValueType("delay", "nanoseconds"))

MOST_SLICES = 240
"""The number of slices into which a time line is divided at most, unless --interval sets their length."""

WAITS = Frame(Function("[waits for the GIL]"))
"""Stands between a waiter's stack (below) and the stack of who held the lock meanwhile (above)."""

UNSEEN = Frame(Function("[no holder seen]"))
"""In the holder's place: the lock was on its way from one thread to another, or its holder was met by no sample."""

_LATER = {"added_later": True}


@dataclass(frozen=True, slots=True)
class GilThread:
    """One thread of the process.

    Attributes:
        pid, tid, name: Who; a tid below 0 stands for all threads of that name that have ended, if there are very many.
        wait_count: How often it had to wait. A wait ends when it gets the lock, however often it woke up in vain.
        wait_ns, wait_max_ns: How long in all, and the longest; exact.
        held_on_ns: It held the lock and ran; from samples.
        held_off_ns: How long it held the lock while off-CPU (blocked or preempted); exact.
        cpu_ns: It ran, with the lock or without; from samples.
        handover_ns: It had dropped the lock on request and waited until somebody took it; exact.
    """

    pid: int
    tid: int
    name: str
    wait_count: int = 0
    wait_ns: int = 0
    wait_max_ns: int = 0
    held_on_ns: int = 0
    held_off_ns: int = 0
    cpu_ns: int = 0
    handover_ns: int = 0

    @property
    def held_ns(self) -> int:
        """How long it held the lock."""
        return self.held_on_ns + self.held_off_ns


@dataclass(frozen=True, slots=True)
class Wait:
    """All waits of one thread at one place of the program.

    Attributes:
        tid: Whose.
        stack: Where, leaf-first.
        count, total_ns, max_ns: Exact.
        labels: What else the stack is labelled with, as text (`label_text`).
    """

    tid: int
    stack: Stack
    count: int
    total_ns: int
    max_ns: int
    labels: str = field(default="", metadata=_LATER)


@dataclass(frozen=True, slots=True)
class Hold:
    """All holding of one thread at one place of the program; `on_ns` is sampled, `off_ns` exact."""

    tid: int
    stack: Stack
    on_ns: int
    off_ns: int
    labels: str = field(default="", metadata=_LATER)


@dataclass(frozen=True, slots=True)
class Block:
    """Time that one thread waited while another held the lock.

    Attributes:
        holder, waiter: Their tids.
        holder_stack, waiter_stack: Where in the program, leaf-first.
        time_ns: Sampled while the holder ran, exact while it was off-CPU.
        holder_labels, waiter_labels: As those of a Wait.
    """

    holder: int
    holder_stack: Stack
    waiter: int
    waiter_stack: Stack
    time_ns: int
    holder_labels: str = field(default="", metadata=_LATER)
    waiter_labels: str = field(default="", metadata=_LATER)


@dataclass(frozen=True, slots=True)
class GilSlice:
    """A stretch of the recording; times are since its beginning. `wait_ns` is summed over all threads."""

    start_ns: int
    end_ns: int
    held_ns: int
    wait_ns: int


@dataclass(frozen=True, slots=True)
class GilRecord:
    """A recording.

    Attributes:
        threads: Every thread that was seen.
        waits, holds, blocks: By place of the program.
        slices: What happened when, in order of time.
        time_ns: When the recording began, Unix time.
        duration_ns: How long it lasted.
        collection: How it was recorded, and what was lost.
    """

    threads: tuple[GilThread, ...] = ()
    waits: tuple[Wait, ...] = ()
    holds: tuple[Hold, ...] = ()
    blocks: tuple[Block, ...] = ()
    slices: tuple[GilSlice, ...] = ()
    time_ns: int = 0
    duration_ns: int = 0
    collection: Collection = field(default_factory=Collection)

    def by_tid(self) -> dict[int, GilThread]:
        """Its threads."""
        return {thread.tid: thread for thread in self.threads}

    def to_recording(self, shown: Mapping[str, Option]) -> Recording:
        """All of it, to be saved; `shown`: the options of the command that shape what it prints."""
        tables = {
            "threads": Table.of(GilThread, self.threads),
            "waits": Table.of(Wait, self.waits),
            "holds": Table.of(Hold, self.holds),
            "blocks": Table.of(Block, self.blocks),
            "slices": Table.of(GilSlice, self.slices),
        }
        return Recording("gil", self.to_profile(), tables, shown)

    @classmethod
    def from_recording(cls, recording: Recording) -> GilRecord:
        """Inverse of `to_recording`.

        Raises:
            ProfileFormatError: The recording is another one, or damaged.
        """
        return cls(
            threads=tuple(recording.rows("threads", GilThread)),
            waits=tuple(recording.rows("waits", Wait)),
            holds=tuple(recording.rows("holds", Hold)),
            blocks=tuple(recording.rows("blocks", Block)),
            slices=tuple(recording.rows("slices", GilSlice)),
            time_ns=recording.profile.time_ns,
            duration_ns=recording.profile.duration_ns,
            collection=recording.profile.collection,
        )

    def waits_by_holder(self) -> list[tuple[Wait, Block | None, int]]:
        """Every wait, divided among those who held the lock.

        Returns:
            Wait, who held the lock (None: nobody was seen), nanoseconds. The sum for each wait is exactly its total:
            where the samples of its holders make more, all are made smaller alike.
        """
        blocks: defaultdict[tuple[int, Stack, str], list[Block]] = defaultdict(list)
        for block in self.blocks:
            blocks[block.waiter, block.waiter_stack, block.waiter_labels].append(block)
        shares: list[tuple[Wait, Block | None, int]] = []
        for wait in self.waits:
            found = blocks[wait.tid, wait.stack, wait.labels]
            seen_ns = sum(block.time_ns for block in found)
            parts = [block.time_ns * min(wait.total_ns, seen_ns) // max(seen_ns, 1) for block in found]
            shares += [(wait, block, part) for block, part in zip(found, parts, strict=True)]
            shares.append((wait, None, wait.total_ns - sum(parts)))
        return [share for share in shares if share[2] > 0]

    def to_profile(self) -> Profile:
        """The waits as `contentions/count, delay/nanoseconds`.

        A stack is the waiter's, then WAITS, then the holder's on top: its leaf is what the lock was held for. The
        delays of each waiter's stack add up exactly; among its holders, contentions are divided as the delay is.
        """
        threads = self.by_tid()
        builder = ProfileBuilder(GIL_TYPES)
        left = {id(wait): [wait.count, wait.total_ns] for wait in self.waits}
        for wait, block, time_ns in self.waits_by_holder():
            rest = left[id(wait)]
            count = round(rest[0] * time_ns / rest[1]) if rest[1] else 0
            left[id(wait)] = [rest[0] - count, rest[1] - time_ns]
            waiter, holder = threads.get(wait.tid), threads.get(block.holder) if block else None
            labels = [Label("thread", waiter.name), Label("pid", waiter.pid)] if waiter else []
            labels.append(Label("tid", max(wait.tid, 0)))
            if block:
                labels.append(Label("holder", f"{holder.name if holder else 'thread'} ({max(block.holder, 0)})"))
                labels += [Label(f"holder_{one.key}", one.value) for one in from_text(block.holder_labels)]
            labels += from_text(wait.labels)
            above = block.holder_stack if block else (UNSEEN,)
            builder.add((*above, WAITS, *wait.stack), (count, time_ns), tuple(labels))
        profile = builder.build()
        profile.time_ns, profile.duration_ns = self.time_ns, self.duration_ns
        profile.period_type, profile.period = GIL_TYPES[0], 1
        profile.collection = self.collection
        return profile


def merge_gil(records: Sequence[GilRecord], *, keep_slices: bool = False) -> GilRecord:
    """Several windows of one recording as one, or several recordings.

    Args:
        records: In order of time; at least one.
        keep_slices: Keep every slice. Otherwise neighbours become one as often as it takes to have MOST_SLICES at most.
    """
    collection = records[0].collection
    for record in records[1:]:
        collection = collection.merge(record.collection)
    slices = [_later(one, record.time_ns - records[0].time_ns) for record in records for one in record.slices]
    return GilRecord(
        threads=_summed((one for record in records for one in record.threads), lambda one: (one.pid, one.tid)),
        waits=_summed(
            (one for record in records for one in record.waits), lambda one: (one.tid, one.stack, one.labels)
        ),
        holds=_summed(
            (one for record in records for one in record.holds), lambda one: (one.tid, one.stack, one.labels)
        ),
        blocks=_summed((one for record in records for one in record.blocks), lambda one: replace(one, time_ns=0)),
        slices=tuple(slices if keep_slices else joined_slices(slices)),
        time_ns=records[0].time_ns,
        duration_ns=sum(record.duration_ns for record in records),
        collection=collection,
    )


def joined_slices(slices: Sequence[GilSlice]) -> list[GilSlice]:
    """At most MOST_SLICES of them: neighbours become one, again and again."""
    found = list(slices)
    while len(found) > MOST_SLICES:
        found = [_joined(found[at : at + 2]) for at in range(0, len(found), 2)]
    return found


def _joined(slices: Sequence[GilSlice]) -> GilSlice:
    held_ns, wait_ns = sum(one.held_ns for one in slices), sum(one.wait_ns for one in slices)
    return GilSlice(slices[0].start_ns, slices[-1].end_ns, held_ns, wait_ns)


_Sum = TypeVar("_Sum", GilThread, Wait, Hold, Block)

_MAXIMA = frozenset({"max_ns", "wait_max_ns"})


def _later(one: GilSlice, shift_ns: int) -> GilSlice:
    return replace(one, start_ns=one.start_ns + shift_ns, end_ns=one.end_ns + shift_ns)


def _summed(rows: Iterable[_Sum], key: Callable[[_Sum], Hashable]) -> tuple[_Sum, ...]:
    """Merge rows with equal keys."""
    sums: dict[Hashable, _Sum] = {}
    for row in rows:
        known = sums.get(key(row))
        sums[key(row)] = _added(known, row) if known else row
    return tuple(sums.values())


def _added(one: _Sum, other: _Sum) -> _Sum:
    """Both as one: times and counts add up, of the longest waits the longer one holds."""
    values = {
        name: (max if name in _MAXIMA else add)(getattr(one, name), getattr(other, name))
        for name in (field.name for field in fields(one))
        if name.endswith(("_ns", "count"))
    }
    return replace(one, **values)
