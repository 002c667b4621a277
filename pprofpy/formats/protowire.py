"""The protobuf wire format, as much of it as profile.proto needs, fast enough for millions of samples.

Scalars and nested messages are read field by field; long runs of varints are decoded and encoded by NumPy at once.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pprofpy.errors import ProfileFormatError
from pprofpy.model.stack_table import Ints, offsets_of

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_UINT64_MASK = (1 << 64) - 1

Field = tuple[int, int, int, int]
"""Field number, wire type, the value (VARINT) or the payload's start (all others), and where the field ends."""


def corrupt(what: str) -> ProfileFormatError:
    """The error for data that is not what it claims to be."""
    return ProfileFormatError(
        f"the profile is damaged: {what}", "record it again, or check that the file was copied whole"
    )


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """One varint as an unsigned 64-bit number, and the position after it.

    Raises:
        ProfileFormatError: The bytes are damaged.
    """
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise corrupt("a number is cut short or too long")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _UINT64_MASK, position
        shift += 7


def signed(value: int) -> int:
    """An unsigned 64-bit number read as int64."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: bytes, position: int, end: int) -> Iterator[Field]:
    """The fields of the message in `data[position:end]`, in order.

    Raises:
        ProfileFormatError: The bytes are damaged.
    """
    while position < end:
        tag, position = read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            value, position = read_varint(data, position)
            if position > end:
                raise corrupt("a number runs past the end of its message")
            yield number, wire_type, value, position
            continue
        if wire_type == BYTES:
            length, position = read_varint(data, position)
        elif wire_type in (FIXED64, FIXED32):
            length = 8 if wire_type == FIXED64 else 4
        else:
            raise corrupt(f"field {number} has the unknown wire type {wire_type}")
        if length > end - position:
            raise corrupt(f"field {number} runs past the end of its message")
        yield number, wire_type, position, position + length
        position += length


def decode_varints(data: bytes) -> tuple[NDArray[np.uint64], Ints]:
    """All varints of a packed run.

    Returns:
        Their values, and the position in `data` after each.

    Raises:
        ProfileFormatError: The bytes are damaged.
    """
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if len(raw) and (not len(ends) or ends[-1] != len(raw) - 1):
        raise corrupt("a packed list of numbers is cut short")
    starts = np.concatenate(([0], ends[:-1] + 1))[: len(ends)]
    lengths = ends - starts + 1
    longest = int(lengths.max(initial=0))
    if longest > _MAX_VARINT_BYTES:
        raise corrupt("a packed list holds a number that is too long")
    values = (raw[starts] & 0x7F).astype(np.uint64)
    for index in range(1, longest):
        rows = np.flatnonzero(lengths > index)
        septets = (raw[starts[rows] + index] & 0x7F).astype(np.uint64)
        values[rows] |= septets << np.uint64(7 * index)
    return values, ends + 1


_CHUNK_BYTES = 1 << 17


def decode_runs(data: bytes | bytearray, edges: Ints) -> tuple[NDArray[np.uint64], Ints]:
    """The varints of many packed runs laid end to end, chunk by chunk: eight bytes for each number, and little else.

    Args:
        data: The runs.
        edges: Where each begins; and the end. Rising from 0 to `len(data)`.

    Returns:
        All values; and for each run the place of its first one (one more than runs).

    Raises:
        ProfileFormatError: The bytes are damaged.
    """
    raw = np.frombuffer(data, np.uint8)
    if (raw[edges[edges > 0] - 1] >= 0x80).any():
        raise corrupt("a list ends in the middle of a number")
    values = np.empty(int(np.count_nonzero(raw < 0x80)), np.uint64)
    offsets = np.zeros(len(edges), np.int64)
    done = start = edge = 0
    while start < len(raw):
        found, ends = decode_varints(bytes(raw[start : _end_of_chunk(raw, start)]))
        values[done : done + len(found)] = found
        last = start + int(ends[-1])
        next_edge = int(np.searchsorted(edges, last, side="right"))
        offsets[edge:next_edge] = done + np.searchsorted(ends, edges[edge:next_edge] - start, side="right")
        done, start, edge = done + len(found), last, next_edge
    return values, offsets


def _end_of_chunk(raw: NDArray[np.uint8], start: int) -> int:
    """Where a chunk ends that holds only whole numbers."""
    end = min(start + _CHUNK_BYTES, len(raw))
    tail = np.flatnonzero(raw[max(start, end - _MAX_VARINT_BYTES) : end] < 0x80)
    if not len(tail):
        raise corrupt("a packed list holds a number that is too long")
    return max(start, end - _MAX_VARINT_BYTES) + int(tail[-1]) + 1


def encode_varints(values: Ints) -> tuple[bytes, Ints]:
    """int64 numbers as varints laid end to end.

    Returns:
        The bytes, and the offset of each number's first byte (one more than numbers).
    """
    unsigned = np.ascontiguousarray(values, np.int64).view(np.uint64)
    lengths = np.ones(len(unsigned), np.int64)
    for index in range(1, _MAX_VARINT_BYTES):
        lengths += (unsigned >> np.uint64(7 * index)) != 0
    offsets = offsets_of(lengths)
    raw = np.empty(int(offsets[-1]), np.uint8)
    for index in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > index)
        septets = ((unsigned[rows] >> np.uint64(7 * index)) & np.uint64(0x7F)).astype(np.uint8)
        more = (lengths[rows] > index + 1).astype(np.uint8) << 7
        raw[offsets[rows] + index] = septets | more
    return raw.tobytes(), offsets


def varint(value: int) -> bytes:
    """One number as a varint; negative ones as their 64-bit two's complement."""
    value &= _UINT64_MASK
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def number_field(number: int, value: int) -> bytes:
    """A varint field; nothing at all for the default, 0."""
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def bytes_field(number: int, payload: bytes) -> bytes:
    """A length-delimited field: a string, a nested message or a packed list."""
    return varint(number << 3 | BYTES) + varint(len(payload)) + payload
