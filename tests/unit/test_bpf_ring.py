"""A ring buffer whose records may be anything: one that cannot be decoded costs itself, and nothing is read twice."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from pprofpy.collectors.kernel import ring as events
from pprofpy.collectors.kernel.ring import RecordStream
from pprofpy.errors import NotPossibleError

SIZE = 4 * mmap.PAGESIZE
DISCARDED, BUSY = 1 << 30, 1 << 31


class Ring:
    """The kernel's end: a file laid out as the map is."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("ring")
        os.ftruncate(self.descriptor, 2 * mmap.PAGESIZE + 2 * SIZE)
        self._produced = 0

    def write(self, content: bytes, flags: int = 0) -> None:
        record = struct.pack("<II", len(content) | flags, 0) + content
        os.pwrite(self.descriptor, record, 2 * mmap.PAGESIZE + self._produced)
        self._produced += -(-len(record) // 8) * 8
        os.pwrite(self.descriptor, struct.pack("<Q", self._produced), mmap.PAGESIZE)

    @property
    def free_from(self) -> int:
        return int.from_bytes(os.pread(self.descriptor, 8, 0), "little")

    @property
    def written(self) -> int:
        return self._produced


@pytest.fixture
def ring() -> Iterator[Ring]:
    found = Ring()
    yield found
    os.close(found.descriptor)


@pytest.fixture
def stream(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> Iterator[RecordStream]:
    monkeypatch.setattr(events, "kernel_facts", lambda descriptor: {"max_entries": SIZE})
    found = RecordStream(ring.descriptor)
    yield found
    found.close()


def test_records_come_in_order_and_their_room_is_given_back(ring: Ring, stream: RecordStream) -> None:
    taken: list[bytes] = []
    for content, flags in ((b"first", 0), (b"dropped", DISCARDED), (b"second", 0), (b"not yet", BUSY)):
        ring.write(content, flags)

    stream.read(taken.append)

    assert taken == [b"first", b"second"]
    assert ring.free_from == ring.written - 16
    assert stream.undecoded == 0


@pytest.mark.parametrize("error", [ValueError, IndexError, KeyError, OverflowError, TypeError, struct.error])
def test_one_that_cannot_be_decoded_costs_itself_and_is_counted(
    error: type[Exception], ring: Ring, stream: RecordStream
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
    assert ring.free_from == ring.written


def test_an_error_of_ours_passes_and_the_ring_does_not_stall(ring: Ring, stream: RecordStream) -> None:
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
