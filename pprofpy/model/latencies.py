"""All that `pprofpy sched-latency` finds, and how it is kept in a recording's tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.model.latency import (
    BUCKETS,
    CpuSlice,
    Histogram,
    LatencyRecord,
    LongWait,
    LongWaitRow,
    StackWaits,
    ThreadWaits,
    Waits,
    add_stack_waits,
    histograms_by_owner,
    merge_threads,
)
from pprofpy.model.profile import Stack
from pprofpy.model.recording import Option, Recording
from pprofpy.model.table import Table


@dataclass(frozen=True, slots=True)
class Latencies:
    """All that `pprofpy sched-latency` found.

    Attributes:
        record: The whole recording.
        intervals: One record per interval, in order, if --interval was given.
        long_waits: The waits above the threshold, oldest first, as far as they were kept.
        long_wait_count: How many there were.
        shown_before: For each interval, how many long waits had been shown before its table.
    """

    record: LatencyRecord
    intervals: tuple[LatencyRecord, ...] = ()
    long_waits: tuple[LongWait, ...] = ()
    long_wait_count: int = 0
    shown_before: tuple[int, ...] = ()

    def to_recording(self, shown: Mapping[str, Option]) -> Recording:
        """All of it, to be saved; `shown`: the options of the command that shape what it prints."""
        records = (self.record, *self.intervals)
        before = (self.long_wait_count, *self.shown_before)
        threads = [(index, one) for index, record in enumerate(records) for one in record.threads]
        tables = {
            "records": Table.of(_RecordRow, map(_record_row, records, before)),
            "notes": Table.of(_NoteRow, _note_rows(records)),
            "losses": Table.of(_LossRow, _loss_rows(records)),
            "threads": Table.of(_ThreadRow, [_thread_row(index, one) for index, one in threads]),
            "buckets": Table.of(_BucketRow, _bucket_rows(one for _, one in threads)),
            "stacks": Table.of(StackWaits, self.record.stacks),
            "long_waits": Table.of(LongWaitRow, self.long_waits),
            "slices": Table.of(_SliceRow, _slice_rows(self.long_waits)),
        }
        return Recording("sched-latency", self.record.to_profile(), tables, shown)

    @classmethod
    def from_recording(cls, recording: Recording) -> Latencies:
        """Inverse of `to_recording`.

        Raises:
            ProfileFormatError: The recording is another one, or damaged.
        """
        about = recording.rows("records", _RecordRow)
        if not about:
            raise ProfileFormatError("the recording is damaged: it tells of no time")
        threads: list[list[ThreadWaits]] = [[] for _ in about]
        for index, thread in _threads_of(recording):
            threads[_place(index, about)].append(thread)
        notes: list[list[str]] = [[] for _ in about]
        for row in recording.rows("notes", _NoteRow):
            notes[_place(row.record, about)].append(row.text)
        losses: list[dict[str, int]] = [{} for _ in about]
        for loss in recording.rows("losses", _LossRow):
            losses[_place(loss.record, about)][loss.name] = loss.count
        collection = recording.profile.collection
        records = [
            LatencyRecord(
                tuple(threads[i]), one.start_ns, one.time_ns, one.duration_ns, one.per_process,
                replace(collection, notes=tuple(notes[i]), losses=losses[i]) if i else collection,
            )
            for i, one in enumerate(about)
        ]  # fmt: skip
        return cls(
            replace(records[0], stacks=tuple(recording.rows("stacks", StackWaits))),
            tuple(records[1:]),
            tuple(_long_waits_of(recording)),
            about[0].long_waits_before,
            tuple(one.long_waits_before for one in about[1:]),
        )


def merge_latencies(found: Sequence[Latencies]) -> Latencies:
    """Several windows of one recording as one, or several recordings; in order of time, at least one."""
    before = 0
    shown_before: list[int] = []
    for one in found:
        shown_before += [count + before for count in one.shown_before]
        before += one.long_wait_count
    return Latencies(
        merge_records([one.record for one in found]),
        tuple(interval for one in found for interval in one.intervals),
        tuple(wait for one in found for wait in one.long_waits),
        before,
        tuple(shown_before),
    )


def merge_records(records: Sequence[LatencyRecord]) -> LatencyRecord:
    """Several windows of one recording as one; in order of time, at least one.

    Threads with equal tid and name are merged. How long a thread has been waiting is taken from the last window.
    """
    threads: dict[tuple[int, int, str], list[ThreadWaits]] = {}
    stacks: dict[tuple[int, int, str, bool, Stack, Stack], StackWaits] = {}
    last = {(one.pid, one.tid, one.name): one.waiting_ns for one in records[-1].threads}
    collection = records[0].collection
    for record in records[1:]:
        collection = collection.merge(record.collection)
    for record in records:
        for one in record.threads:
            threads.setdefault((one.pid, one.tid, one.name), []).append(one)
        for place in record.stacks:
            key = place.pid, place.tid, place.name, place.was_preempted, place.stack, place.waker_stack
            stacks[key] = add_stack_waits(stacks[key], place) if key in stacks else place
    return LatencyRecord(
        tuple(
            replace(merge_threads(*who, group), waiting_ns=last.get(who, 0), comm=group[-1].comm)
            for who, group in threads.items()
        ),
        records[0].start_ns,
        records[0].time_ns,
        sum(record.duration_ns for record in records),
        records[0].per_process,
        collection,
        tuple(stacks.values()),
    )


# -- rows of tables ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _RecordRow:
    start_ns: int
    time_ns: int
    duration_ns: int
    per_process: bool
    long_waits_before: int


@dataclass(frozen=True, slots=True)
class _NoteRow:
    record: int
    text: str


@dataclass(frozen=True, slots=True)
class _LossRow:
    record: int
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class _ThreadRow:
    record: int
    pid: int
    tid: int
    name: str
    migrations: int
    waiting_ns: int
    comm: str
    woken_count: int
    woken_total_ns: int
    woken_max_ns: int
    woken_max_at_ns: int
    preempted_count: int
    preempted_total_ns: int
    preempted_max_ns: int
    preempted_max_at_ns: int


@dataclass(frozen=True, slots=True)
class _BucketRow:
    thread: int
    was_preempted: bool
    bucket: int
    count: int


@dataclass(frozen=True, slots=True)
class _SliceRow:
    long_wait: int
    tid: int
    pid: int
    name: str
    duration_ns: int


def _record_row(record: LatencyRecord, long_waits_before: int) -> _RecordRow:
    return _RecordRow(record.start_ns, record.time_ns, record.duration_ns, record.per_process, long_waits_before)


def _note_rows(records: Iterable[LatencyRecord]) -> list[_NoteRow]:
    return [_NoteRow(index, note) for index, record in enumerate(records) for note in record.collection.notes]


def _loss_rows(records: Iterable[LatencyRecord]) -> list[_LossRow]:
    return [_LossRow(index, *loss) for index, record in enumerate(records) for loss in record.collection.losses.items()]


def _thread_row(record: int, one: ThreadWaits) -> _ThreadRow:
    woken, preempted = (
        (waits.count, waits.total_ns, waits.max_ns, waits.max_at_ns) for waits in (one.woken, one.preempted)
    )
    return _ThreadRow(
        record, one.pid, one.tid, one.name, one.migrations, one.waiting_ns, one.comm, *woken, *preempted
    )  # fmt: skip


def _bucket_rows(threads: Iterable[ThreadWaits]) -> list[_BucketRow]:
    return [
        _BucketRow(index, waits is one.preempted, bucket, count)
        for index, one in enumerate(threads)
        for waits in (one.woken, one.preempted)
        for bucket, count in zip(waits.histogram.indices.tolist(), waits.histogram.counts.tolist(), strict=True)
    ]


def _threads_of(recording: Recording) -> Iterator[tuple[int, ThreadWaits]]:
    """(number of the record, thread) of each row."""
    rows, buckets = recording.rows("threads", _ThreadRow), recording.rows("buckets", _BucketRow)
    if any(one.count <= 0 or not 0 <= one.bucket < BUCKETS for one in buckets):
        raise ProfileFormatError("the recording is damaged: a histogram counts what cannot be")
    owners = np.array([_place(one.thread, rows) * 2 + one.was_preempted for one in buckets], np.int64)
    indices, counts = (np.array([getattr(one, name) for one in buckets], np.int64) for name in ("bucket", "count"))
    histograms = histograms_by_owner(owners, indices, counts)
    for place, row in enumerate(rows):
        woken, preempted = (histograms.get(place * 2 + kind, Histogram()) for kind in (0, 1))
        yield (
            row.record,
            ThreadWaits(
                row.pid,
                row.tid,
                row.name,
                Waits(row.woken_count, row.woken_total_ns, row.woken_max_ns, row.woken_max_at_ns, woken),
                Waits(
                    row.preempted_count,
                    row.preempted_total_ns,
                    row.preempted_max_ns,
                    row.preempted_max_at_ns,
                    preempted,
                ),
                row.migrations,
                row.waiting_ns,
                row.comm,
            ),
        )


def _slice_rows(waits: Iterable[LongWait]) -> list[_SliceRow]:
    return [
        _SliceRow(index, ran.tid, ran.pid, ran.name, ran.duration_ns)
        for index, wait in enumerate(waits)
        for ran in wait.ran
    ]


def _long_waits_of(recording: Recording) -> list[LongWait]:
    rows = recording.rows("long_waits", LongWaitRow)
    ran: list[list[CpuSlice]] = [[] for _ in rows]
    for one in recording.rows("slices", _SliceRow):
        ran[_place(one.long_wait, rows)].append(CpuSlice(one.tid, one.pid, one.name, one.duration_ns))
    return [
        LongWait(**{field.name: getattr(row, field.name) for field in fields(row)}, ran=tuple(ran[index]))
        for index, row in enumerate(rows)
    ]


def _place(index: int, rows: Sequence[object]) -> int:
    """An index into a table.

    Raises:
        ProfileFormatError: The table has no such row.
    """
    if not 0 <= index < len(rows):
        raise ProfileFormatError("the recording is damaged: a table refers to a row that another one does not have")
    return index
