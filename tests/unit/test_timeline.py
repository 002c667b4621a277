"""What threads did all the time: on hand-built switches and wake-ups."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from pprofpy.errors import ProfileFormatError
from pprofpy.events.log import EventLog
from pprofpy.events.scheduling import calls_by_thread, to_trace
from pprofpy.formats import chrome
from pprofpy.model.profile import Collection
from pprofpy.model.timeline import BlockingCall, State, Timeline, build
from pprofpy.model.trace import RECORD, Context, Kind, Trace, TracedThread
from pprofpy.reports import timeline as report
from tests.events import LOG, batch, call, switch, waking

A, B, STRANGER = 1, 2, 99
S, D, Z = 1, 2, 32


def trace(*rows: tuple[Any, ...]) -> Trace:
    """Rows of RECORD: from 1,000 to 2,000 ns on the clock; A and B are watched."""
    threads = {
        A: TracedThread(A, "alice", True),
        B: TracedThread(A, "bob", True),
        STRANGER: TracedThread(STRANGER, "other", False),
    }
    return Trace(np.array(list(rows), RECORD), threads, 1_000, 10**18, 1_000)


def switched(ts_ns: int, out: int, into: int, state: int = 0, wait_ns: int = 0, cpu: int = 0) -> tuple[Any, ...]:
    return ts_ns, wait_ns, out, into, cpu, Kind.SWITCH, 0, state


def woken(
    ts_ns: int, waker: int, wakee: int, context: Context = Context.TASK, kind: Kind = Kind.WAKEUP
) -> tuple[Any, ...]:
    return ts_ns, 0, waker, wakee, 0, kind, context, 0


def states(timeline: Timeline, tid: int) -> list[tuple[int, int, str, str]]:
    return [(span.start_ns, span.end_ns, span.state, span.why) for span in timeline.spans[tid]]


def test_a_thread_runs_blocks_is_woken_waits_and_runs_again() -> None:
    timeline = build(
        trace(
            switched(1_100, A, STRANGER, S),
            woken(1_500, B, A),
            switched(1_600, STRANGER, A, wait_ns=100, cpu=3),
            switched(1_700, A, STRANGER),
            switched(1_900, STRANGER, A, wait_ns=200),
        )
    )

    assert states(timeline, A) == [
        (1_000, 1_100, "running", ""),
        (1_100, 1_500, "blocked", "sleeping"),
        (1_500, 1_600, "runnable", "woken"),
        (1_600, 1_700, "running", ""),
        (1_700, 1_900, "runnable", "preempted"),
        (1_900, 2_000, "running", ""),
    ]
    assert timeline.spans[A][1].waker == "bob (2)"
    assert [tuple(arrow) for arrow in timeline.arrows] == [(1_500, B, A)]


def test_states_before_the_first_and_after_the_last_event() -> None:
    timeline = build(trace(woken(1_300, A, B), switched(1_400, STRANGER, B, wait_ns=100), switched(1_800, B, A, D)))

    assert states(timeline, B) == [
        (1_000, 1_300, "blocked", "before the recording"),
        (1_300, 1_400, "runnable", "woken"),
        (1_400, 1_800, "running", ""),
        (1_800, 2_000, "blocked", "uninterruptible"),
    ]


@pytest.mark.parametrize(
    ("missing", "holes"),
    [(None, 0), (0, 1), (1, 1), (2, 1)],
    ids=["nothing", "that it lost its CPU", "that it was woken", "that it got a CPU"],
)
def test_an_event_that_is_missing_is_noticed(missing: int | None, holes: int) -> None:
    rows = [switched(1_200, A, STRANGER, S), woken(1_300, B, A), switched(1_400, STRANGER, A)]
    kept = [row for index, row in enumerate(rows) if index != missing]
    timeline = build(trace(woken(1_050, B, A), switched(1_100, STRANGER, A), *kept, switched(1_500, A, B, S)))

    assert timeline.holes == holes
    assert report.build(timeline).holes == holes


def test_without_wakeups_nobody_can_tell_that_one_is_missing() -> None:
    rows = switched(1_100, STRANGER, A), switched(1_200, A, STRANGER, S), switched(1_400, STRANGER, A)

    assert build(trace(*rows)).holes == 0


def test_a_thread_that_ends_has_no_more_states() -> None:
    timeline = build(trace(switched(1_400, STRANGER, A), switched(1_500, A, STRANGER, Z)))

    assert states(timeline, A) == [(1_400, 1_500, "running", "")]


def test_a_new_thread_is_runnable_from_its_creation() -> None:
    timeline = build(trace(woken(1_200, A, B, kind=Kind.NEW), switched(1_300, STRANGER, B, wait_ns=100)))

    assert states(timeline, B)[:2] == [(1_200, 1_300, "runnable", "new"), (1_300, 2_000, "running", "")]


def test_a_wake_up_that_comes_before_the_thread_has_left_ends_its_block_at_once() -> None:
    timeline = build(
        trace(woken(1_200, B, A), switched(1_210, A, STRANGER, S), switched(1_300, STRANGER, A, wait_ns=90))
    )

    assert (1_210, 1_300, "runnable", "woken") in states(timeline, A)
    assert not any(span.state is State.BLOCKED and span.start_ns >= 1_210 for span in timeline.spans[A])


def test_an_interrupt_wakes_without_an_arrow() -> None:
    timeline = build(
        trace(switched(1_100, A, B, S), woken(1_200, 0, A, Context.IRQ), switched(1_300, B, A, wait_ns=100))
    )

    assert timeline.spans[A][1].waker == "timer/irq"
    assert not timeline.arrows


def test_only_watched_threads_have_a_track() -> None:
    assert set(build(trace(switched(1_100, A, STRANGER, S))).spans) == {A}


def test_spans_never_overlap_and_cover_the_recording_without_gaps() -> None:
    rng = np.random.default_rng(7)
    rows, now, running = [], 1_001, A
    for _ in range(300):
        now += int(rng.integers(1, 3))
        if rng.random() < 0.4:
            rows.append(woken(now, running, A + B - running))
        else:
            rows.append(switched(now, running, A + B - running, int(rng.choice([0, S, D]))))
            running = A + B - running

    for spans in build(trace(*rows)).spans.values():
        assert all(one.end_ns == following.start_ns for one, following in pairwise(spans))
        assert all(span.duration_ns > 0 for span in spans)


def test_a_blocked_thread_names_the_system_call_it_is_in() -> None:
    events = trace(switched(1_100, A, B, S), woken(1_200, B, A), switched(1_300, B, A, wait_ns=100))

    timeline = build(events, {A: [BlockingCall(1_010, 1_020, "read"), BlockingCall(1_090, 1_310, "futex")]})

    assert [span.call for span in timeline.spans[A]] == ["", "futex", "", ""]


# -- from recorded events ----------------------------------------------------------------------------------------------


def test_recorded_events_make_the_same_timeline() -> None:
    events = batch(
        [
            switch(1_100, 10, 99, S),
            waking(1_500, 11, 10),
            switch(1_600, 99, 10, tgid=99, flags=16),
            switch(1_700, 10, 99, 0x100),
        ],
        [call(1_050, 202, 600), call(1_800, 0, 10)],
    )

    made = to_trace(LOG, [events], 1_000, Collection())
    timeline = build(made, calls_by_thread(EventLog(), [events]))

    assert states(timeline, 10) == [
        (1_000, 1_100, "running", ""),
        (1_100, 1_500, "blocked", "sleeping"),
        (1_500, 1_600, "runnable", "woken"),
        (1_600, 1_700, "running", ""),
        (1_700, 2_000, "runnable", "preempted"),
    ]
    assert [span.call for span in timeline.spans[10]] == ["", "futex", "", "", ""]
    assert 99 not in timeline.spans


def test_without_switches_there_is_no_timeline() -> None:
    with pytest.raises(ProfileFormatError, match="scheduler"):
        to_trace(EventLog(), [], 0, Collection())


# -- what is made of it ------------------------------------------------------------------------------------------------

EXAMPLE = build(
    trace(
        switched(1_100, A, STRANGER, S),
        woken(1_200, STRANGER, B),
        woken(1_500, B, A),
        switched(1_600, STRANGER, A, wait_ns=100),
    )
)


def test_chrome_json_has_a_track_for_each_thread_and_an_arrow_for_each_wake_up() -> None:
    document = json.loads(chrome.write(EXAMPLE))
    events = document["traceEvents"]

    # Every event has what the format demands
    for event in events:
        assert {"ph", "name", "pid", "tid"} <= event.keys()
        assert event["ph"] in "MXsf"
        if event["ph"] != "M":
            assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
    names = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert names == {A: "alice 1", B: "bob 2", STRANGER: "other 99"}
    # Slices are the spans, in microseconds since the beginning
    slices = [(one["name"], one["ts"], one["dur"]) for one in events if one["ph"] == "X" and one["tid"] == A]
    assert slices == [
        ("running", 0, 0.1),
        ("blocked: sleeping", 0.1, 0.4),
        ("runnable: woken", 0.5, 0.1),
        ("running", 0.6, 0.4),
    ]
    # Each arrow begins in a slice of the waker and ends in the one that the wakee was woken into
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert starts.keys() == ends.keys() == {1, 2}
    for flow in (*starts.values(), *ends.values()):
        assert any(
            one["ph"] == "X" and one["tid"] == flow["tid"] and one["ts"] <= flow["ts"] <= one["ts"] + one["dur"]
            for one in events
        )
    assert (starts[2]["tid"], ends[2]["tid"], ends[2]["bp"]) == (B, A, "e")


def test_the_table_adds_up_each_state() -> None:
    rows = {row.tid: row for row in report.build(EXAMPLE).rows}

    assert (rows[A].running_ns, rows[A].runnable_ns, rows[A].blocked_ns) == (500, 100, 400)
    assert rows[A].reasons == [("sleeping", 400)]
    assert rows[A].switches == 2
