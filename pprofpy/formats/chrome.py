"""Timelines as Chrome trace JSON, for https://ui.perfetto.dev and chrome://tracing.

A track for each thread, with a slice for each stretch of running, runnable or blocked; an arrow from the waker's slice
to the one that the wakee was woken into. Threads that are known only as wakers have a track with a mark for each arrow.

Source: Trace Event Format (Google, 2016): `X` complete, `s`/`f` flow, `M` metadata events; times in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pprofpy import __version__
from pprofpy.model.timeline import Arrow, Span, State, Timeline
from pprofpy.model.trace import TracedThread

SUFFIX = ".json"

_COLOURS = {State.RUNNING: "thread_state_running", State.RUNNABLE: "thread_state_runnable"}
_BLOCKED_COLOURS = {"uninterruptible": "thread_state_uninterruptible"}
_SLEEPING_COLOUR = "thread_state_sleeping"

Event = dict[str, Any]


def write(timeline: Timeline) -> bytes:
    """Encode a timeline."""
    encoder = json.JSONEncoder(separators=(",", ":"))
    about = {
        "recorded_by": f"pprofpy {__version__}",
        "start_unix_ns": timeline.time_ns,
        "start_monotonic_ns": timeline.start_ns,
        "duration_ns": timeline.duration_ns,
    }
    head = f'{{"displayTimeUnit":"ns","otherData":{encoder.encode(about)},"traceEvents":[\n'
    return (head + ",\n".join(map(encoder.encode, events(timeline))) + "\n]}\n").encode()


def events(timeline: Timeline) -> Iterator[Event]:
    """The events of the file: names, then slices, then arrows."""
    strangers = {arrow.waker_tid for arrow in timeline.arrows} - set(timeline.spans)
    yield from _names(timeline, sorted({*timeline.spans, *strangers}))
    for spans in timeline.spans.values():
        for span in spans:
            yield _slice(span, timeline)
    for number, arrow in enumerate(timeline.arrows, 1):
        if arrow.waker_tid in strangers:
            yield _mark(arrow, timeline)
        yield from _flow(number, arrow, timeline)


def _names(timeline: Timeline, tids: list[int]) -> Iterator[Event]:
    processes: dict[int, str] = {}
    for tid in tids:
        thread = _thread(timeline, tid)
        leader = timeline.threads.get(thread.pid, thread)
        processes[thread.pid] = leader.name
        yield {
            "ph": "M", "name": "thread_name", "pid": thread.pid, "tid": tid, "args": {"name": f"{thread.name} {tid}"},
        }  # fmt: skip
    for pid, name in processes.items():
        yield {"ph": "M", "name": "process_name", "pid": pid, "tid": pid, "args": {"name": f"{name} {pid}"}}


def _slice(span: Span, timeline: Timeline) -> Event:
    what = span.call or span.why
    args: Event = {"state": str(span.state)}
    if span.cpu >= 0:
        args["cpu"] = span.cpu
    for name, value in (("why", span.why), ("system call", span.call), ("woken by", span.waker)):
        if value:
            args[name] = value
    if span.stack:
        args["stack"] = list(span.stack)
    colour = _COLOURS.get(span.state) or _BLOCKED_COLOURS.get(span.why, _SLEEPING_COLOUR)
    return {
        "ph": "X",
        "name": f"{span.state}: {what}" if what else str(span.state),
        "cat": str(span.state),
        "ts": _us(span.start_ns, timeline),
        "dur": span.duration_ns / 1000,
        "pid": _thread(timeline, span.tid).pid,
        "tid": span.tid,
        "cname": colour,
        "args": args,
    }


def _mark(arrow: Arrow, timeline: Timeline) -> Event:
    """A slice of no length for an arrow to begin in: nothing else is known of this thread."""
    wakee = _thread(timeline, arrow.wakee_tid)
    return {
        "ph": "X",
        "name": f"wakes {wakee.name} {arrow.wakee_tid}",
        "cat": "wake-up",
        "ts": _us(arrow.ts_ns, timeline),
        "dur": 0,
        "pid": _thread(timeline, arrow.waker_tid).pid,
        "tid": arrow.waker_tid,
        "args": {},
    }


def _flow(number: int, arrow: Arrow, timeline: Timeline) -> Iterator[Event]:
    common = {"name": "wake-up", "cat": "wake-up", "id": number, "ts": _us(arrow.ts_ns, timeline)}
    yield {"ph": "s", **common, "pid": _thread(timeline, arrow.waker_tid).pid, "tid": arrow.waker_tid}
    yield {"ph": "f", "bp": "e", **common, "pid": _thread(timeline, arrow.wakee_tid).pid, "tid": arrow.wakee_tid}


def _thread(timeline: Timeline, tid: int) -> TracedThread:
    return timeline.threads.get(tid) or TracedThread(tid, "thread", False)


def _us(ts_ns: int, timeline: Timeline) -> float:
    return (ts_ns - timeline.start_ns) / 1000
