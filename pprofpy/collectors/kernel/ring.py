"""Events from the kernel to NumPy: a BPF ring buffer, mapped into memory and decoded a batch at a time.

In most buffers all records have one type and one size (EventStream), so that whatever the kernel has written lies there
as an array with a fixed stride: no callback and no copy per event. A million events a second cost the reader a few
percent of a CPU.

Of a large buffer only the part that is being read is mapped. All that is mapped counts as our memory, twice as much as
there is, since the data are mapped twice; and a container has limits.

Source: Linux, kernel/bpf/ringbuf.c: the consumer's position on the first page, the producer's on the second, then the
data, mapped twice in a row so that a record never wraps. A record is a header (32 bits of length with two flags on
top, 32 bits of padding) and the payload, rounded up to 8 bytes.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.kernel.maps import kernel_facts
from pprofpy.collectors.kernel.refusals import refused
from pprofpy.errors import PprofpyError

_PAGE = mmap.PAGESIZE
_PRODUCER_AT, _DATA_AT = _PAGE, 2 * _PAGE
_PART_BYTES = 1 << 20
_HEADER_BYTES = 8
_LENGTH = struct.Struct("<I")
_BUSY = np.uint32(1 << 31)
_DISCARDED = np.uint32(1 << 30)
_UNDECODABLE = (ValueError, TypeError, LookupError, ArithmeticError, struct.error)
"""What decoding raises where lengths, addresses or numbers are none."""


class _RingBuffer:
    """A ring buffer in our memory.

    Args:
        descriptor: The map's file descriptor; it belongs to the program.

    Raises:
        NotPossibleError: The kernel does not map it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = kernel_facts(descriptor)["max_entries"]
        try:
            self._consumer_map = mmap.mmap(descriptor, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            try:
                self._producer_map = self._mapped(_PRODUCER_AT, _PAGE)
            except OSError:
                self._consumer_map.close()
                raise
        except OSError as error:
            raise refused("let us map a ring buffer", error) from error
        self._consumer = ctypes.c_uint64.from_buffer(self._consumer_map)
        self._position = 0
        self._part: mmap.mmap | None = None
        self._part_at = 0

    def arrived(self) -> int:
        """How many bytes the kernel has written so far: a mark that a reader can stop at."""
        return int(np.frombuffer(self._producer_map, np.uint64, 1)[0])

    def _at(self, position: int, size_bytes: int) -> tuple[mmap.mmap, int]:
        """Memory that has what the kernel has written from a position on, and where in it.

        Nobody may refer to memory that was returned before.

        Raises:
            NotPossibleError: The kernel does not map it.
        """
        place = position % self._size
        if self._part and self._part_at <= place and place + size_bytes <= self._part_at + len(self._part):
            return self._part, place - self._part_at
        if self._part:
            self._part.close()
            self._part = None
        self._part_at = place - place % _PAGE
        wanted = max(_PART_BYTES, -(-(place + size_bytes - self._part_at) // _PAGE) * _PAGE)
        try:
            self._part = self._mapped(_DATA_AT + self._part_at, min(wanted, 2 * self._size - self._part_at))
        except OSError as error:
            raise refused("let us map a ring buffer", error) from error
        return self._part, place - self._part_at

    def _mapped(self, offset: int, size_bytes: int) -> mmap.mmap:
        return mmap.mmap(self._descriptor, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=offset)

    def _advance(self, position: int) -> None:
        """Give room back to the kernel."""
        self._position = position
        self._consumer.value = position

    def close(self) -> None:
        """Unmap the buffer."""
        del self._consumer
        self._consumer_map.close()
        self._producer_map.close()
        if self._part:
            self._part.close()


class EventStream(_RingBuffer):
    """The reading end of a ring buffer whose records are all alike.

    Args:
        descriptor: The map's file descriptor; it belongs to the program.
        dtype: The type of every record.

    Attributes:
        is_behind: The last call of `read` has left some.
    """

    is_behind = False

    def __init__(self, descriptor: int, dtype: np.dtype[Any]) -> None:
        super().__init__(descriptor)
        self.dtype = dtype
        self._stride = -(-(_HEADER_BYTES + dtype.itemsize) // 8) * 8
        self._most_at_once = max((_PART_BYTES - _PAGE) // self._stride, 1)
        self._record = np.dtype(
            {
                "names": ["length", "event"],
                "formats": [np.uint32, dtype],
                "offsets": [0, _HEADER_BYTES],
                "itemsize": self._stride,
            }
        )

    def read(self, most_bytes: int = 0) -> NDArray[Any]:
        """What has arrived since the last call, oldest first; an array of `dtype`, which is the caller's.

        Args:
            most_bytes: About how much to read at most; 0: everything. If there is more, `is_behind` says so.

        Raises:
            NotPossibleError: The kernel does not map the buffer.
            PprofpyError: A record has another size than `dtype`.
        """
        waiting = (self.arrived() - self._position) // self._stride
        parts = [np.empty(0, self.dtype)]
        most = max(most_bytes // self._stride, 1) if most_bytes else waiting
        self.is_behind = waiting > most
        waiting = min(waiting, most)
        while waiting > 0:
            count = min(waiting, self._most_at_once)
            events, done = self._read_part(count)
            parts.append(events)
            self._advance(self._position + done * self._stride)
            waiting = waiting - done if done == count else 0
        return np.concatenate(parts)

    def _read_part(self, count: int) -> tuple[NDArray[Any], int]:
        """So many records, or as many of them as are written; and how many these are, discarded ones included."""
        memory, start = self._at(self._position, count * self._stride)
        records = np.frombuffer(memory, self._record, count, start)
        busy = np.flatnonzero(records["length"] & _BUSY)
        records = records[: busy[0]] if len(busy) else records
        lengths = records["length"]
        if len(lengths) and ((lengths & ~_DISCARDED) != self.dtype.itemsize).any():
            raise PprofpyError("a ring buffer holds records of another size than expected")
        return records["event"][(lengths & _DISCARDED) == 0].copy(), len(records)


class RecordStream(_RingBuffer):
    """The reading end of a ring buffer with records of several sizes.

    Args:
        descriptor: The map's file descriptor; it belongs to the program.

    Attributes:
        undecoded: How many records were not what was expected: what a target holds is in them, and it may be anything.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.undecoded = 0

    def read(self, take: Callable[[bytes], None], until: int | None = None) -> None:
        """Hand over what has arrived since the last call, oldest first.

        A record that cannot be decoded costs that record: it is counted. Room is given back for what was taken.

        Args:
            take: Called with each record. Errors of ours pass through; the next call goes on after that record.
            until: What `arrived` returned; None for all that is there.
        """
        position = self._position
        produced = self.arrived() if until is None else until
        try:
            while position < produced:
                memory, place = self._at(position, _HEADER_BYTES)
                (header,) = _LENGTH.unpack_from(memory, place)
                if header & int(_BUSY):
                    break
                length = header & 0x3FFFFFFF
                whole = -(-(_HEADER_BYTES + length) // 8) * 8
                memory, place = self._at(position, whole)
                position += whole
                if header & int(_DISCARDED):
                    continue
                try:
                    take(memory[place + _HEADER_BYTES : place + _HEADER_BYTES + length])
                except _UNDECODABLE:
                    self.undecoded += 1
        finally:
            self._advance(position)
