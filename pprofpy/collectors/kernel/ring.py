"""Events from the kernel to NumPy: a BPF ring buffer, mapped into memory and decoded a batch at a time.

In most buffers all records have one type and one size (EventStream), so that whatever the kernel has written lies there
as an array with a fixed stride: no callback and no copy per event. A million events a second cost the reader a few
percent of a CPU.

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
        self._size = size_bytes = kernel_facts(descriptor)["max_entries"]
        try:
            self._consumer_map = mmap.mmap(descriptor, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
            try:
                self._data_map = mmap.mmap(
                    descriptor, _PAGE + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE
                )
            except OSError:
                self._consumer_map.close()
                raise
        except OSError as error:
            raise refused("let us map a ring buffer", error) from error
        self._consumer = ctypes.c_uint64.from_buffer(self._consumer_map)
        self._position = 0

    def arrived(self) -> int:
        """How many bytes the kernel has written so far: a mark that a reader can stop at."""
        return int(np.frombuffer(self._data_map, np.uint64, 1)[0])

    def _advance(self, position: int) -> None:
        """Give room back to the kernel."""
        self._position = position
        self._consumer.value = position

    def close(self) -> None:
        """Unmap the buffer."""
        del self._consumer
        self._consumer_map.close()
        self._data_map.close()


class EventStream(_RingBuffer):
    """The reading end of a ring buffer whose records are all alike.

    Args:
        descriptor: The map's file descriptor; it belongs to the program.
        dtype: The type of every record.
    """

    def __init__(self, descriptor: int, dtype: np.dtype[Any]) -> None:
        super().__init__(descriptor)
        self.dtype = dtype
        self._stride = -(-(_HEADER_BYTES + dtype.itemsize) // 8) * 8
        self._record = np.dtype(
            {
                "names": ["length", "event"],
                "formats": [np.uint32, dtype],
                "offsets": [0, _HEADER_BYTES],
                "itemsize": self._stride,
            }
        )

    def read(self) -> NDArray[Any]:
        """Everything that has arrived since the last call, oldest first; an array of `dtype`, which is the caller's.

        Raises:
            PprofpyError: A record has another size than `dtype`.
        """
        waiting = (self.arrived() - self._position) // self._stride
        if not waiting:
            return np.empty(0, self.dtype)
        start = _PAGE + self._position % self._size
        records = np.frombuffer(self._data_map, self._record, waiting, start)
        busy = np.flatnonzero(records["length"] & _BUSY)
        records = records[: busy[0]] if len(busy) else records
        lengths = records["length"]
        if len(lengths) and ((lengths & ~_DISCARDED) != self.dtype.itemsize).any():
            raise PprofpyError("a ring buffer holds records of another size than expected")
        events: NDArray[Any] = records["event"][(lengths & _DISCARDED) == 0].copy()
        self._advance(self._position + len(records) * self._stride)
        return events


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
                place = _PAGE + position % self._size
                (header,) = _LENGTH.unpack_from(self._data_map, place)
                if header & int(_BUSY):
                    break
                length = header & 0x3FFFFFFF
                position += -(-(_HEADER_BYTES + length) // 8) * 8
                if header & int(_DISCARDED):
                    continue
                try:
                    take(self._data_map[place + _HEADER_BYTES : place + _HEADER_BYTES + length])
                except _UNDECODABLE:
                    self.undecoded += 1
        finally:
            self._advance(position)
