"""Scheduling events of a recorder of our own, in the format of recorded tracepoints: nothing changes on the way."""

from __future__ import annotations

import io

import numpy as np
import pytest

from pprofpy.errors import ProfileFormatError
from pprofpy.events.log import Batch, EventLog
from pprofpy.events.scheduling import to_trace
from pprofpy.events.switches import DATA_BYTES, TRACEPOINTS, Known, reported, to_records
from pprofpy.events.words import Narrator
from pprofpy.formats import eventlog
from pprofpy.model.profile import Collection
from pprofpy.model.trace import IDLE, RECORD, Context, Kind, Trace, TracedThread, state_letter

MAIN, WORKER, OTHER = 10, 11, 99
LOG = EventLog(TRACEPOINTS, DATA_BYTES, 500, 1_700_000_000_000_000_000)
KNOWN = {MAIN: Known(MAIN, b"python", True), WORKER: Known(MAIN, b"python", True), OTHER: Known(OTHER, b"other")}
ROWS = [
    (1_000, 0, 0, WORKER, 3, Kind.WAKEUP, Context.IRQ, 0),
    (6_000, 5_000, OTHER, WORKER, 3, Kind.SWITCH, 0, 0),
    (7_000, 0, WORKER, MAIN, 3, Kind.WAKEUP, Context.TASK, 0),
    (8_000, 1_000, 0, MAIN, 1, Kind.SWITCH, 1, 0),
    (9_000, 0, WORKER, OTHER, 3, Kind.SWITCH, 0, 1),
    (9_500, 0, OTHER, 12, 0, Kind.NEW, Context.TASK, 0),
]


def batch() -> Batch:
    records = to_records(np.array(ROWS, RECORD), lambda tid: KNOWN.get(tid, Known()))
    return Batch(records, threads={MAIN: (MAIN, "MainThread"), WORKER: (MAIN, "worker")})


def in_file() -> bytes:
    stream = io.BytesIO()
    writer = eventlog.EventWriter(stream, LOG)
    writer.add(batch())
    writer.end(10_000, Collection("test", dropped=2))
    return stream.getvalue()


def read_again(data: bytes) -> Trace:
    reader = eventlog.EventReader(io.BytesIO(data))
    return to_trace(reader.log, list(reader.batches()), reader.duration_ns, reader.collection)


def test_a_file_brings_back_what_was_recorded() -> None:
    again = read_again(in_file())

    assert again.records.tolist() == [tuple(map(int, row)) for row in ROWS]
    assert again.threads == {
        MAIN: TracedThread(MAIN, "MainThread", True),
        WORKER: TracedThread(MAIN, "worker", True),
        OTHER: TracedThread(OTHER, "other", False),
        12: TracedThread(12, "thread 12", False),
    }
    assert (again.start_ns, again.time_ns, again.duration_ns) == (500, LOG.time_ns, 10_000)
    assert again.collection == Collection("test", dropped=2)


def test_names_that_come_after_all_events_are_read() -> None:
    stream = io.BytesIO()
    writer = eventlog.EventWriter(stream, LOG)
    writer.add(Batch(batch().records))
    writer.add(Batch(np.zeros(0, batch().records.dtype), threads={WORKER: (MAIN, "late")}))

    assert read_again(stream.getvalue()).threads[WORKER] == TracedThread(MAIN, "late", True)


def test_they_read_as_those_of_tracepoints() -> None:
    lines = Narrator(LOG).lines(batch())

    assert [(one.event, one.tid, one.thread) for one in lines] == [
        ("sched:sched_waking", 0, "irq"),
        ("sched:sched_switch", OTHER, "other"),
        ("sched:sched_waking", WORKER, "python"),
        ("sched:sched_switch", 0, "swapper"),
        ("sched:sched_switch", WORKER, "python"),
        ("sched:sched_wakeup_new", OTHER, "other"),
    ]
    assert lines[1].text == "prev_comm=other prev_pid=99 prev_state=R ==> next_comm=python next_pid=11 wait_ns=5000"
    assert lines[4].text == "prev_comm=python prev_pid=11 prev_state=S ==> next_comm=other next_pid=99 wait_ns=0"
    assert lines[2].text == "comm=python pid=10"


@pytest.mark.parametrize(
    "state", [0, 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, IDLE, 0x102, 0x1002, 0x80 | 0x20], ids=lambda state: f"{state:#x}"
)
def test_a_state_is_the_same_letter_afterwards(state: int) -> None:
    rows = np.array([(1_000, 0, WORKER, OTHER, 0, Kind.SWITCH, 0, state)], RECORD)

    made = to_trace(LOG, [Batch(to_records(rows, KNOWN.__getitem__))], 0, Collection())

    assert [state_letter(one) for one in made.records["state"].tolist()] == [state_letter(state)]


def test_a_wait_for_a_lock_of_the_kernel_s_is_uninterruptible() -> None:
    assert reported(np.array([0x1000], np.uint32)).tolist() == [2]


@pytest.mark.parametrize(("field", "value"), [("wait_ns", 1 << 63), ("was_preempted", 2)])
def test_a_forged_wait_is_refused(field: str, value: int) -> None:
    one = TRACEPOINTS[Kind.SWITCH].by_name[field]
    forged = batch().records.copy()
    raw = np.ascontiguousarray(forged["data"]).view(np.uint8).reshape(len(forged), DATA_BYTES)
    raw[1, one.offset : one.offset + one.size] = np.frombuffer(value.to_bytes(one.size, "little"), np.uint8)
    forged["data"] = np.ascontiguousarray(raw).view(f"V{DATA_BYTES}")[:, 0]

    with pytest.raises(ProfileFormatError, match="impossible length"):
        to_trace(LOG, [Batch(forged)], 0, Collection())


def test_a_profile_of_them_counts_each() -> None:
    profile = eventlog.read(in_file())

    assert profile.total(0) == len(ROWS)
    assert {sample.stack[0].function.name for sample in profile.samples()} == {one.name for one in TRACEPOINTS}
