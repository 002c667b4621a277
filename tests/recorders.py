"""What recorders find, as the nouns that tests ask about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pprofpy.collectors.sched_latency import SchedRecorder
from pprofpy.collectors.trace import EventRecorder
from pprofpy.events.log import Batch
from pprofpy.events.scheduling import to_trace
from pprofpy.model.gil import GilRecord
from pprofpy.model.latencies import Latencies
from pprofpy.model.latency import LatencyRecord, LongWait
from pprofpy.model.recording import Recording
from pprofpy.model.trace import Trace
from pprofpy.session import Recorder


def noun(found: Recording) -> Any:
    """A GilRecord, a LatencyRecord, or else a Profile."""
    if found.kind == "gil":
        return GilRecord.from_recording(found)
    return latency_record(found) if found.kind == "sched-latency" else found.profile


def finished(recorder: Recorder) -> Any:
    """The last window, as a noun."""
    return noun(recorder.finish())


def latency_record(found: Recording) -> LatencyRecord:
    return Latencies.from_recording(found).record


def long_waits(recorder: SchedRecorder) -> list[LongWait]:
    """Those that are new."""
    recorder.poll()
    return recorder.new_long_waits()


def last_events(recorder: EventRecorder) -> Batch:
    """End the recording; the events that have not been read yet."""
    recorder.finish()
    return joined(recorder.read())


def joined(batches: Iterable[Batch]) -> Batch:
    """Batches as one."""
    parts = list(batches)
    return Batch(
        np.concatenate([one.records for one in parts]),
        np.concatenate([one.calls for one in parts]),
        np.concatenate([one.calls_with_strings for one in parts]),
        {key: path for one in parts for key, path in one.fd_paths.items()},
        {address: name for one in parts for address, name in one.symbols.items()},
        {number: stack for one in parts for number, stack in one.stacks.items()},
    )


def trace_of(recorder: SchedRecorder, record: LatencyRecord) -> Trace:
    """The events that nobody has taken yet."""
    return to_trace(recorder.log, [recorder.new_events()], record.duration_ns, record.collection)
