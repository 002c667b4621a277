"""Events are read a part at a time, and still come in order of time, whichever ring buffer they come from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pprofpy.collectors import trace
from pprofpy.collectors.kernel.names import AddressNames, FdPaths
from pprofpy.collectors.kernel.ring import EventStream
from pprofpy.collectors.kernel.tracepoints import Selection
from pprofpy.collectors.trace import EventRecorder, TraceOptions
from pprofpy.events.log import CALL, CALL_WITH_STRINGS, Batch, known_at_ns, record_dtype
from tests.fake_kernel import BUSY, FakeRing

MOST = 2 * CALL.itemsize
"""So many bytes are read of a buffer at once: two calls, or one with strings."""


class Rings(EventRecorder):
    """A recorder whose events tests write."""

    def __init__(self, calls: FakeRing, with_strings: FakeRing) -> None:
        super().__init__(TraceOptions(Selection((), ())))
        self._end_ns = 1
        self._records, self._stacks = None, None
        self._calls = EventStream(calls.descriptor, CALL)
        self._calls_with_strings = EventStream(with_strings.descriptor, CALL_WITH_STRINGS)
        self._held = Batch(records=np.zeros(0, record_dtype(64)))
        self._paths, self._symbols = FdPaths(), AddressNames([])


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeRing, FakeRing]]:
    monkeypatch.setattr(trace, "_PART_BYTES", MOST)
    found = FakeRing(monkeypatch), FakeRing(monkeypatch)
    yield found
    for ring in found:
        ring.close()


def call(ms: int, dtype: np.dtype[np.void]) -> bytes:
    event = np.zeros(1, dtype)
    head = event["call"]["head"] if dtype is CALL_WITH_STRINGS else event["head"]
    head["ts_ns"] = ms * 1_000_000
    return event.tobytes()


def times_ms(recorder: EventRecorder) -> list[list[int]]:
    """When events happened, batch by batch."""
    found = [np.sort(known_at_ns(batch.all_calls())) for batch in recorder.read()]
    return [(times // 1_000_000).tolist() for times in found]


def test_what_is_left_for_later_holds_back_what_came_after_it(rings: tuple[FakeRing, FakeRing]) -> None:
    calls, with_strings = rings
    recorder = Rings(calls, with_strings)
    for ms in range(0, 100, 10):
        assert calls.write(call(ms, CALL))
    for ms in (5, 15, 95):
        assert with_strings.write(call(ms, CALL_WITH_STRINGS))

    batches = times_ms(recorder)

    assert len(batches) > 3
    together = [ms for batch in batches for ms in batch]
    assert together == sorted(together) == sorted([*range(0, 100, 10), 5, 15, 95])


def test_an_event_that_is_still_written_ends_it(rings: tuple[FakeRing, FakeRing]) -> None:
    calls, with_strings = rings
    recorder = Rings(calls, with_strings)
    calls.write(call(10, CALL), BUSY)
    for ms in range(20, 70, 10):
        calls.write(call(ms, CALL))
    with_strings.write(call(30, CALL_WITH_STRINGS))

    assert [ms for batch in times_ms(recorder) for ms in batch] == []
