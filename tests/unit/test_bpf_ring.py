"""Ring buffers: busy records wait, discarded ones are left out; nothing is lost, read twice, or a reason to stall."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from pprofpy.collectors.kernel import ring as ring_module
from pprofpy.collectors.kernel.ring import EventStream, RecordStream
from pprofpy.errors import NotPossibleError, PprofpyError
from tests.fake_kernel import BUSY, DISCARDED, RING_BYTES, FakeRing

EVENT = np.dtype([("number", "u4"), ("place", "u8"), ("cpu", "u4")], align=False)


@pytest.fixture(params=[None, 2], ids=["mapped at once", "mapped in parts"])
def ring(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRing]:
    if request.param:
        monkeypatch.setattr(ring_module, "_PART_BYTES", request.param * mmap.PAGESIZE)
    found = FakeRing(monkeypatch)
    yield found
    found.close()


@pytest.fixture
def stream(ring: FakeRing) -> Iterator[RecordStream]:
    found = RecordStream(ring.descriptor)
    yield found
    found.close()


@pytest.fixture
def events(ring: FakeRing) -> Iterator[EventStream]:
    found = EventStream(ring.descriptor, EVENT)
    yield found
    found.close()


def event(number: int) -> bytes:
    return np.array([(number, 1 << 40 | number, 3)], EVENT).tobytes()


def test_records_come_in_order_and_their_room_is_given_back(ring: FakeRing, stream: RecordStream) -> None:
    taken: list[bytes] = []
    for content, flags in ((b"first", 0), (b"dropped", DISCARDED), (b"second", 0), (b"not yet", BUSY)):
        ring.write(content, flags)

    stream.read(taken.append)

    assert taken == [b"first", b"second"]
    assert ring.consumed == ring.produced - 16
    assert stream.undecoded == 0


def test_only_a_part_of_a_large_buffer_is_mapped(
    ring: FakeRing, stream: RecordStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped = []

    def counted(descriptor: int, size_bytes: int, *arguments: int, **options: int) -> mmap.mmap:
        mapped.append(size_bytes)
        return mmap.mmap(descriptor, size_bytes, *arguments, **options)

    monkeypatch.setattr(ring_module, "mmap", SimpleNamespace(**vars(mmap) | {"mmap": counted}))
    monkeypatch.setattr(ring_module, "_PART_BYTES", mmap.PAGESIZE)
    sizes = (100, 3000, 100, 6000, 200, 4000, 2500)
    taken: list[bytes] = []
    for round_number in range(6):
        content = [bytes([round_number]) * size for size in sizes]
        for one in content:
            ring.write(one)
            stream.read(taken.append)
            assert taken.pop() == one

    assert max(mapped) == 3 * mmap.PAGESIZE  # what the largest record may lie in
    assert len(mapped) > 2 * RING_BYTES // mmap.PAGESIZE


def test_reading_stops_at_a_mark(ring: FakeRing, stream: RecordStream) -> None:
    taken: list[bytes] = []
    ring.write(b"before")
    mark = stream.arrived()
    ring.write(b"after")

    stream.read(taken.append, mark)
    assert taken == [b"before"]

    stream.read(taken.append, mark)
    assert taken == [b"before"]

    stream.read(taken.append)
    assert taken == [b"before", b"after"]


@pytest.mark.parametrize("error", [ValueError, IndexError, KeyError, OverflowError, TypeError, struct.error])
def test_one_that_cannot_be_decoded_costs_itself_and_is_counted(
    error: type[Exception], ring: FakeRing, stream: RecordStream
) -> None:
    taken: list[bytes] = []

    def take(record: bytes) -> None:
        if record == b"forged":
            raise error("a length of -1")
        taken.append(record)

    for content in (b"first", b"forged", b"second"):
        ring.write(content)
    stream.read(take)
    stream.read(take)

    assert taken == [b"first", b"second"]
    assert stream.undecoded == 1
    assert ring.consumed == ring.produced


def test_an_error_of_ours_passes_and_the_ring_does_not_stall(ring: FakeRing, stream: RecordStream) -> None:
    taken: list[bytes] = []

    def take(record: bytes) -> None:
        taken.append(record)
        if record == b"other":
            raise NotPossibleError("these are not the stacks of this process")

    for content in (b"first", b"other", b"second"):
        ring.write(content)
    with pytest.raises(NotPossibleError):
        stream.read(take)
    stream.read(take)

    assert taken == [b"first", b"other", b"second"]


# -- records that are all alike --------------------------------------------------------------------------------------


def test_events_come_as_an_array_without_those_that_were_discarded(ring: FakeRing, events: EventStream) -> None:
    for number, flags in enumerate([0, DISCARDED, 0]):
        ring.write(event(number), flags)

    read = events.read()

    assert read["number"].tolist() == [0, 2]
    assert read["place"].tolist() == [1 << 40, 1 << 40 | 2]
    assert ring.consumed == ring.produced
    assert len(events.read()) == 0


def test_an_event_that_is_being_written_is_waited_for_and_what_follows_it_too(
    ring: FakeRing, events: EventStream
) -> None:
    ring.write(event(0))
    ring.write(event(1), BUSY)

    assert events.read()["number"].tolist() == [0]
    assert events.read()["number"].tolist() == []
    ring.finish(event(1))
    ring.write(event(2))
    assert events.read()["number"].tolist() == [1, 2]


def test_one_that_is_given_up_meanwhile_is_left_out(ring: FakeRing, events: EventStream) -> None:
    ring.write(event(0), BUSY)
    assert len(events.read()) == 0
    ring.finish(event(0), DISCARDED)
    ring.write(event(1))

    assert events.read()["number"].tolist() == [1]


def test_a_full_ring_takes_nothing_until_it_is_read_and_loses_nothing_that_it_took(
    ring: FakeRing, events: EventStream
) -> None:
    taken = 0
    while ring.write(event(taken)):
        taken += 1

    assert taken == RING_BYTES // 24
    assert events.read()["number"].tolist() == list(range(taken))
    assert ring.write(event(taken))
    assert events.read()["number"].tolist() == [taken]


@pytest.mark.parametrize("at_once", [1, 7, 600])
def test_events_that_go_round_and_round_are_each_read_once(at_once: int, ring: FakeRing, events: EventStream) -> None:
    """The size of the ring is no multiple of theirs: they lie across its end at ever other places."""
    assert RING_BYTES % 24
    read: list[int] = []
    for number in range(5000):
        assert ring.write(event(number))
        if number % at_once == 0:
            read += events.read()["number"].tolist()
    read += events.read()["number"].tolist()

    assert read == list(range(5000))


def test_what_was_read_is_the_readers_and_changes_no_more(ring: FakeRing, events: EventStream) -> None:
    ring.write(event(1))
    read = events.read()
    while ring.write(event(2)):
        events.read()
        if ring.produced > 2 * RING_BYTES:
            break

    assert read["number"].tolist() == [1]


@pytest.mark.parametrize("content", [b"", event(1)[:-4], event(1) + b"more"], ids=["empty", "shorter", "longer"])
def test_records_of_another_size_are_an_error_each_time_and_never_events(
    content: bytes, ring: FakeRing, events: EventStream
) -> None:
    ring.write(content)
    ring.write(event(1))
    ring.write(event(2))

    for _ in range(2):
        with pytest.raises(PprofpyError, match="another size"):
            events.read()


# -- both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [[1, 100, 3000, 8, 777], [24]], ids=["several", "one"])
def test_records_of_several_sizes_go_round_too(lengths: list[int], ring: FakeRing, stream: RecordStream) -> None:
    written, taken = [], list[bytes]()
    for number in range(2000):
        content = struct.pack("<I", number) * (lengths[number % len(lengths)] // 4 + 1)
        written.append(content)
        if not ring.write(content):
            stream.read(taken.append)
            assert ring.write(content)
    stream.read(taken.append)

    assert taken == written
    assert stream.undecoded == 0


def test_a_ring_that_the_kernel_does_not_map_is_an_error_of_ours(ring: FakeRing) -> None:
    descriptor = os.open(f"/proc/self/fd/{ring.descriptor}", os.O_RDONLY)
    try:
        with pytest.raises(NotPossibleError, match="map a ring buffer"):
            RecordStream(descriptor)
    finally:
        os.close(descriptor)
