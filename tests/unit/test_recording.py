"""Recordings keep what a profile cannot hold, and stay profiles for everybody else."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from pprofpy.errors import ProfileFormatError
from pprofpy.formats import pprof, recording
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.gil import Block, GilRecord, GilSlice, GilThread, Hold, Wait
from pprofpy.model.heap import HeapRecording, MemoryUse, ObjectType
from pprofpy.model.latencies import Latencies
from pprofpy.model.latency import CpuSlice as Ran
from pprofpy.model.latency import Histogram, LatencyRecord, LongWait, StackWaits, ThreadWaits, Waits
from pprofpy.model.profile import Collection, Frame, Function, Profile, Stack, ValueType
from pprofpy.model.recording import Option, Recording
from pprofpy.model.table import Table

WORK: Stack = (Frame(Function("shop.work", "work", "/app/shop.py", 10), 12, 4), Frame(Function("shop.main")))
OTHER: Stack = (Frame(Function("shop.other"), 1),)
SHOWN: dict[str, Option] = {"nodecount": 10, "threads": True, "sample_index": "cpu"}


@dataclass(frozen=True)
class Point:
    name: str
    count: int
    stack: Stack


def a_profile() -> Profile:
    builder = ProfileBuilder([ValueType("inuse_space", "bytes")])
    builder.add(WORK, (5,))
    return builder.build()


def through_file(made: Recording) -> Recording:
    return recording.read(recording.write(made))


def forged(change: dict[str, object]) -> bytes:
    document = {
        "schema": "pprofpy.recording", "version": 1, "kind": "gil", "shown": {}, "functions": [], "frames": [],
        "stacks": [], "tables": {},
    }  # fmt: skip
    return pprof.write(a_profile(), json.dumps(document | change).encode())


def test_rows_come_back_as_they_were() -> None:
    rows = [Point("ä\x1b", 1, WORK), Point("b", -(1 << 63), ()), Point("c", 3, WORK)]

    read = through_file(Recording("gil", a_profile(), {"points": Table.of(Point, rows)}, SHOWN))

    assert read.rows("points", Point) == rows
    assert (read.kind, dict(read.shown)) == ("gil", SHOWN)


def test_a_table_without_rows_comes_back_with_its_columns() -> None:
    read = through_file(Recording("gil", a_profile(), {"points": Table.of(Point, [])}))

    assert read.rows("points", Point) == []
    assert list(read.tables["points"].columns) == ["name", "count", "stack"]


def test_a_table_gives_rows_as_dictionaries() -> None:
    assert list(Table.of(Point, [Point("a", 1, WORK)])) == [{"name": "a", "count": 1, "stack": WORK}]


def test_the_profile_of_a_recording_is_that_of_the_file_without_tables() -> None:
    made = Recording("gil", a_profile(), {"points": Table.of(Point, [Point("a", 1, WORK)])})

    assert list(pprof.read(recording.write(made)).samples()) == list(a_profile().samples())


def test_a_profile_of_another_program_is_a_recording_without_a_kind() -> None:
    read = recording.read(b"main;work 3\n")

    assert (read.kind, dict(read.tables)) == ("", {})
    assert len(read.profile) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "other"},
        {"version": 2},
        {"kind": 7},
        {"shown": {"a": []}},
        {"tables": {"t": {"a": [1], "b": [1, 2]}}},
        {"tables": {"t": {"a": [1 << 63]}}},
        {"tables": {"t": {"a": [[1]]}}},
        {"tables": {"t": {"a": {"stacks": [0]}}}},
        {"tables": {"t": {"a": {"stacks": [-1]}}}, "stacks": [[]]},
        {"tables": []},
        {"functions": [["a", "b", "c"]]},
        {"functions": [["a", "b", "c", 1 << 70]]},
        {"frames": [[0, 1, 1]]},
        {"stacks": [[True]], "functions": [["a", "b", "c", 1]], "frames": [[0, 1, 1], [0, 1, 1]]},
    ],
)
def test_a_forged_document_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProfileFormatError):
        recording.read(forged(change))


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b"[]", b'"x"', b"{}", b"{", b"1" * 5000])
def test_what_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(ProfileFormatError):
        recording.read(pprof.write(a_profile(), content))


def test_a_missing_table_is_named() -> None:
    with pytest.raises(ProfileFormatError, match="no table 'points'"):
        Recording("gil", a_profile()).rows("points", Point)


def test_a_column_of_another_type_is_refused() -> None:
    table = Table({"name": [1], "count": [1], "stack": [WORK]})

    with pytest.raises(ProfileFormatError, match="'name' holds no str"):
        table.rows(Point)


# -- what the commands find -------------------------------------------------------------------------------------------


def test_a_gil_record_comes_back_as_it_was() -> None:
    record = GilRecord(
        threads=(GilThread(1, 2, "worker", 3, 4, 5, 6, 7, 8, 9), GilThread(1, -1, "Thread-*")),
        waits=(Wait(2, WORK, 1, 2, 3),),
        holds=(Hold(-1, OTHER, 4, 5),),
        blocks=(Block(-1, OTHER, 2, WORK, 2),),
        slices=(GilSlice(0, 10, 5, 2),),
        time_ns=7,
        duration_ns=10,
        collection=Collection(engine="e", target="t", dropped=1, notes=("lost a bit",)),
    )

    assert GilRecord.from_recording(through_file(record.to_recording(SHOWN))) == record


def test_latencies_come_back_as_they_were() -> None:
    woken = Waits(2, 30, 20, 1000, Histogram.of([10, 20]))
    preempted = Waits(1, 1 << 40, 1 << 40, 1001, Histogram.of([1 << 40]))
    threads = (ThreadWaits(1, 2, "worker", woken, preempted, 3, 4, "python"), ThreadWaits(1, 3, "idle"))
    record = LatencyRecord(
        threads,
        5,
        6,
        7,
        True,
        Collection(engine="e", notes=("n1", "n2")),
        (StackWaits(1, 2, "w", True, WORK, (), 1, 2, 3),),
    )
    interval = LatencyRecord(
        threads[:1], 8, 9, 10, True, Collection(engine="e", losses={"long_waits": 3}, notes=("n3",))
    )
    ran = Ran(4, 5, "x", 6), Ran(5, 5, "y", 2)
    long_wait = LongWait(9, 8, 1, 2, "worker", 1, -1, False, "irq", 0, 1, WORK, ran=ran)
    made = Latencies(record, (interval,), (long_wait,), 3, (1,))

    read = Latencies.from_recording(through_file(made.to_recording(SHOWN)))

    assert [_plain(one) for one in (read.record, *read.intervals)] == [_plain(record), _plain(interval)]
    assert read.long_waits == (long_wait,)
    assert (read.long_wait_count, read.shown_before) == (3, (1,))


def _plain(record: LatencyRecord) -> tuple[object, ...]:
    """What can be compared: arrays cannot."""

    def waits(one: Waits) -> tuple[object, ...]:
        counts = one.histogram.indices.tolist(), one.histogram.counts.tolist()
        return one.count, one.total_ns, one.max_ns, one.max_at_ns, counts

    threads = [
        (one.pid, one.tid, one.name, waits(one.woken), waits(one.preempted), one.migrations, one.waiting_ns, one.comm)
        for one in record.threads
    ]
    return (
        threads,
        record.start_ns,
        record.time_ns,
        record.duration_ns,
        record.per_process,
        record.collection,
        record.stacks,
    )


def test_a_heap_recording_comes_back_as_it_was() -> None:
    made = HeapRecording.of([(1, a_profile()), (2, a_profile())])
    made.memory, made.objects_count = MemoryUse(1, 2, 3, -1, -1, 6), 40
    made.types = (ObjectType("dict", 3, 4, (("list", 2), ("set", 1))), ObjectType("shop.Order", 1, 2))

    read = HeapRecording.from_recording(through_file(made.to_recording(SHOWN)))

    assert (read.memory, read.types, read.objects_count) == (made.memory, made.types, 40)
    assert read.snapshots == made.snapshots
    assert read.snapshots.sizes_bytes == {WORK: [5, 5]}


def test_tables_that_refer_beyond_each_other_are_refused() -> None:
    good = Latencies(LatencyRecord((ThreadWaits(1, 2, "w", Waits(1, 1, 1, 1, Histogram.of([1]))),), 1, 2, 3))
    made = good.to_recording({})
    for table, column, value in (("threads", "record", 1), ("buckets", "thread", 9), ("buckets", "bucket", 1 << 30)):
        changed = dict(made.tables[table].columns)
        changed[column] = [value]
        damaged = Recording(made.kind, made.profile, {**made.tables, table: Table(changed)})

        with pytest.raises(ProfileFormatError):
            Latencies.from_recording(damaged)
