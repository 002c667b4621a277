"""Events are read a part at a time, and still come in order of time, whichever ring buffer they come from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pprofpy.collectors.kernel import merging
from pprofpy.collectors.kernel.merging import MergedStream, in_order
from pprofpy.collectors.kernel.ring import EventStream
from pprofpy.events.log import CALL, CALL_WITH_STRINGS, times_ns
from tests.fake_kernel import BUSY, FakeRing

MOST = 2 * CALL.itemsize
"""So many bytes are read of a buffer at once: two calls, or one with strings."""


def merged(rings: tuple[FakeRing, FakeRing]) -> list[MergedStream]:
    dtypes = (CALL, CALL_WITH_STRINGS)
    return [
        MergedStream(EventStream(ring.descriptor, dtype), dtype, times_ns, lambda _: None)
        for ring, dtype in zip(rings, dtypes, strict=True)
    ]


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeRing, FakeRing]]:
    monkeypatch.setattr(merging, "PART_BYTES", MOST)
    found = FakeRing(monkeypatch), FakeRing(monkeypatch)
    yield found
    for ring in found:
        ring.close()


def call(ms: int, dtype: np.dtype[np.void]) -> bytes:
    event = np.zeros(1, dtype)
    head = event["call"]["head"] if dtype is CALL_WITH_STRINGS else event["head"]
    head["ts_ns"] = ms * 1_000_000
    return event.tobytes()


def times_ms(streams: list[MergedStream], until_ms: int = 1 << 40) -> list[list[int]]:
    """When events happened, part by part."""
    found = [np.sort(np.concatenate([*map(times_ns, part)])) for part in in_order(streams, until_ms * 1_000_000)]
    return [(times // 1_000_000).tolist() for times in found]


def test_what_is_left_for_later_holds_back_what_came_after_it(rings: tuple[FakeRing, FakeRing]) -> None:
    calls, with_strings = rings
    for ms in range(0, 100, 10):
        assert calls.write(call(ms, CALL))
    for ms in (5, 15, 95):
        assert with_strings.write(call(ms, CALL_WITH_STRINGS))

    parts = times_ms(merged(rings))

    assert len(parts) > 3
    together = [ms for part in parts for ms in part]
    assert together == sorted(together) == sorted([*range(0, 100, 10), 5, 15, 95])


def test_little_of_a_stream_that_has_to_wait_is_in_memory(rings: tuple[FakeRing, FakeRing]) -> None:
    """Calls come one a millisecond, those with strings one a second: all but the first of these have to wait."""
    calls, with_strings = rings
    for number in range(16):
        assert calls.write(call(number, CALL))
        assert with_strings.write(call(1000 * number, CALL_WITH_STRINGS))
    streams = merged(rings)

    held = [len(streams[1]._held) for _ in in_order(streams, 1 << 60)]

    assert max(held) <= 2
    assert sum(1 for number in held if number) > 4


def test_it_stops_at_a_time_and_goes_on_there(rings: tuple[FakeRing, FakeRing]) -> None:
    streams = merged(rings)
    for ms in range(10):
        rings[0].write(call(ms, CALL))

    assert [ms for part in times_ms(streams, 5) for ms in part] == [0, 1, 2, 3, 4]
    assert [ms for part in times_ms(streams) for ms in part] == [5, 6, 7, 8, 9]


def test_an_event_that_is_still_written_ends_it(rings: tuple[FakeRing, FakeRing]) -> None:
    calls, with_strings = rings
    calls.write(call(10, CALL), BUSY)
    for ms in range(20, 70, 10):
        calls.write(call(ms, CALL))
    with_strings.write(call(30, CALL_WITH_STRINGS))

    assert times_ms(merged(rings)) == [[]]
