"""Recorded events in a file (`.trace`): written as they come, readable up to its last whole block if it was cut short.

The first line marks the file as ours. Blocks follow: four letters that tell what it is, the length and the CRC-32 of
what comes, and the content, zlib-compressed: JSON, or records as the kernel's programs wrote them (see `events.log`).

    LOG_  JSON  what was watched: always the first
    RECS CALL STRS  records: of one portion at most one of each, in this order
    PATH  JSON  paths of open files
    SYMS  JSON  names of kernel addresses
    STKS  JSON  Python stacks in words
    THRD  JSON  names of threads
    SUMM  JSON  how it was recorded and what was lost: always the last

Nothing in it is executed or unpickled: a file from elsewhere can be opened without fear.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.events.event_profile import EventSums
from pprofpy.events.log import (
    CALL,
    CALL_WITH_STRINGS,
    FIRST_MACHINE,
    KNOWN_MACHINES,
    Batch,
    EventLog,
    FdKey,
    Records,
    record_dtype,
)
from pprofpy.events.tracepoint import Tracepoint, parse_format
from pprofpy.formats.document import LARGEST, DocumentError, collection, integer, items, members, parse, string
from pprofpy.formats.limits import check_expansion, unpacked_limit
from pprofpy.model.profile import Collection, Profile
from pprofpy.text import printable

SUFFIX = ".trace"
MAGIC = b"pprofpy event log 2\n"

_BLOCK = struct.Struct("<4sII")
_LARGEST_BYTES = 256 << 20
_LONGEST_NS = 10**18
_LATEST = np.uint64(LARGEST)
_EVENTS = (b"RECS", b"CALL", b"STRS")
"""Blocks of events, in the order in which those of one portion are written."""

_MOST_DATA_BYTES = 8192
_MOST_ID = (1 << 32) - 1
_LEVEL = 1


class EventWriter:
    """Writes a file block by block.

    Args:
        stream: Opened for binary writing; stays open.
        log: What is watched.
    """

    def __init__(self, stream: BinaryIO, log: EventLog) -> None:
        self._stream = stream
        stream.write(MAGIC)
        self._json(
            b"LOG_",
            {
                "tracepoints": [[one.group, one.description, dict(one.constants)] for one in log.tracepoints],
                "data_bytes": log.data_bytes,
                "start_ns": log.start_ns,
                "time_ns": log.time_ns,
                "machine": log.machine,
            },
        )

    def add(self, batch: Batch) -> None:
        """Append events; they are in the file at once, whatever becomes of us."""
        if batch.fd_paths:
            self._json(b"PATH", [[*key, path] for key, path in batch.fd_paths.items()])
        if batch.symbols:
            self._json(b"SYMS", list(batch.symbols.items()))
        if batch.stacks:
            self._json(b"STKS", list(batch.stacks.items()))
        if batch.threads:
            self._json(b"THRD", [[tid, *about] for tid, about in batch.threads.items()])
        for tag, records in zip(_EVENTS, (batch.records, batch.calls, batch.calls_with_strings), strict=True):
            if len(records):
                self._block(tag, records.tobytes())
        self._stream.flush()

    def end(self, duration_ns: int, collection: Collection) -> None:
        """Write what is known only at the end."""
        self._json(b"SUMM", {"duration_ns": duration_ns, "collection": asdict(collection)})
        self._stream.flush()

    def _json(self, tag: bytes, data: Any) -> None:
        self._block(tag, json.dumps(data).encode())

    def _block(self, tag: bytes, content: bytes) -> None:
        packed = zlib.compress(content, _LEVEL)
        self._stream.write(_BLOCK.pack(tag, len(packed), zlib.crc32(packed)) + packed)


class EventReader:
    """Reads a file; the batches only as they are asked for.

    Attributes:
        log: What was watched.
        duration_ns: How long; 0 if the file was cut short. Known, as is `collection`, when all batches have been read.
        collection: How it was recorded and what was lost.

    Raises:
        ProfileFormatError: It is no such file.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._packed = self._unpacked = 0
        self._calls_ns = 0.0
        if stream.read(len(MAGIC)) != MAGIC:
            raise ProfileFormatError("this is no recording of events", "record one with 'pprofpy trace -o FILE.trace'")
        first = self._next()
        if first is None or first[0] != b"LOG_":
            raise _damaged("it does not say what was watched")
        self.log = _log(first[1])
        self.duration_ns = 0
        self.collection = Collection(notes=("the recording was cut short: its end, and what was lost, is unknown",))

    def batches(self) -> Iterator[Batch]:
        """The events, in the portions they were written in: those of all kinds together, in order of time.

        Raises:
            ProfileFormatError: A block contradicts itself. One that is not all there just ends the file.
        """
        names: dict[str, Any] = {"fd_paths": {}, "symbols": {}, "stacks": {}, "threads": {}}
        dtypes = {b"RECS": record_dtype(self.log.data_bytes), b"CALL": CALL, b"STRS": CALL_WITH_STRINGS}
        found: dict[bytes, Records] = {}
        while block := self._next():
            tag, content = block
            if found and not _goes_on(found, tag):
                yield _batch(dtypes, found, names)
                found = {}
            if tag == b"PATH":
                names["fd_paths"] = _paths(content)
            elif tag == b"SYMS":
                names["symbols"] = _symbols(content)
            elif tag == b"STKS":
                names["stacks"] = _stacks(content)
            elif tag == b"THRD":
                names["threads"] = _threads(content)
                yield _batch(dtypes, {}, names)  # the last ones come after all events
            elif tag == b"SUMM":
                self._finish(content)
            elif tag in dtypes:
                found[tag] = self._records(content, dtypes[tag])
        if found:
            yield _batch(dtypes, found, names)

    def _records(self, content: bytes, dtype: np.dtype[Any]) -> Records:
        if len(content) % dtype.itemsize:
            raise _damaged("a record is cut off")
        records: Records = np.frombuffer(content, dtype)
        calls = records["call"] if "call" in (dtype.names or ()) else records
        heads = calls["head"]
        if "data" in (dtype.names or ()) and (heads["event"] >= len(self.log.tracepoints)).any():
            raise _damaged("an event of an unknown kind")
        if (heads["ts_ns"] > _LATEST).any():
            raise _damaged("an event at an impossible time")
        if "duration_ns" in (calls.dtype.names or ()):
            self._calls_ns += float(calls["duration_ns"].sum(dtype=np.float64))
            if self._calls_ns >= LARGEST:
                raise _damaged("its system calls take longer than can be")
        return records

    def _finish(self, content: bytes) -> None:
        with _reading("its end cannot be read"):
            about = members(parse(content))
            self.duration_ns = integer(about["duration_ns"], 0, _LONGEST_NS)
            self.collection = collection(about["collection"])

    def _next(self) -> tuple[bytes, bytes] | None:
        """The next block; None at the end, also if that is in the middle of a block."""
        head = self._stream.read(_BLOCK.size)
        if len(head) < _BLOCK.size:
            return None
        tag, size, checksum = _BLOCK.unpack(head)
        if size > _LARGEST_BYTES:
            raise _damaged("a block is too large")
        packed = self._stream.read(size)
        if len(packed) < size:
            return None
        if zlib.crc32(packed) != checksum:
            raise _damaged("a checksum does not match")
        decompressor = zlib.decompressobj()
        try:
            self._packed += _BLOCK.size + size
            left = unpacked_limit(self._packed) - self._unpacked
            content = decompressor.decompress(packed, max(1, min(left, _LARGEST_BYTES)))
            self._unpacked += len(content)
        except zlib.error as error:
            raise _damaged(str(error)) from error
        if decompressor.unconsumed_tail or not decompressor.eof:
            raise _damaged("a block is too large, or unpacks to more than recordings do")
        return tag, content


def read(data: bytes) -> Profile:
    """Counts and times of all events, by Python stack and thread; see `events.profile`.

    Raises:
        ProfileFormatError: It is no such file, or damaged.
    """
    reader = EventReader(io.BytesIO(data))
    sums = EventSums(reader.log)
    for batch in reader.batches():
        sums.add(batch)
    profile = sums.take(reader.log.time_ns, reader.duration_ns, reader.collection)
    check_expansion(profile, len(data))
    return profile


def _goes_on(found: Mapping[bytes, Records], tag: bytes) -> bool:
    """Is a block of the portion that is being read? A writer writes one of each kind at most, in this order."""
    return tag in _EVENTS and all(_EVENTS.index(before) < _EVENTS.index(tag) for before in found)


def _batch(dtypes: Mapping[bytes, np.dtype[Any]], found: Mapping[bytes, Records], names: Mapping[str, Any]) -> Batch:
    records, calls, with_strings = (found.get(tag, np.zeros(0, dtypes[tag])) for tag in _EVENTS)
    return Batch(records, calls, with_strings, **names)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Make one error of all that a document may lack."""
    try:
        yield
    except (DocumentError, KeyError) as error:
        raise _damaged(f"{what} ({error})") from error


def _log(content: bytes) -> EventLog:
    with _reading("it does not say what was watched"):
        about = members(parse(content))
        tracepoints = tuple(_tracepoint(*items(one, 3)) for one in items(about["tracepoints"]))
        log = EventLog(
            tracepoints,
            integer(about["data_bytes"], 8, _MOST_DATA_BYTES),
            integer(about["start_ns"]),
            integer(about["time_ns"]),
            _machine(about),
        )
    if not max((one.size for one in tracepoints), default=8) <= log.data_bytes:
        raise _damaged("records of an impossible size")
    return log


def _machine(about: Mapping[str, Any]) -> str:
    """Files from before there was more than one do not tell it."""
    name = string(about.get("machine", FIRST_MACHINE))
    if name not in KNOWN_MACHINES:
        raise ProfileFormatError(f"the events were recorded on a machine that is not known: {printable(name)}")
    return name


def _tracepoint(group: Any, text: Any, constants: Any) -> Tracepoint:
    numbers = {
        string(name): integer(value, -LARGEST - 1, 2 * LARGEST + 1) for name, value in members(constants).items()
    }
    return parse_format(string(group), string(text), numbers)


def _paths(content: bytes) -> dict[FdKey, str]:
    with _reading("paths cannot be read"):
        rows = (items(row, 4) for row in items(parse(content)))
        return {
            FdKey(_address(pid), _address(fd), _address(inode)): printable(string(path))
            for pid, fd, inode, path in rows
        }


def _symbols(content: bytes) -> dict[int, str]:
    with _reading("symbols cannot be read"):
        rows = (items(row, 2) for row in items(parse(content)))
        return {_address(address): printable(string(name)) for address, name in rows}


def _stacks(content: bytes) -> dict[int, tuple[str, ...]]:
    with _reading("stacks cannot be read"):
        rows = (items(row, 2) for row in items(parse(content)))
        return {_address(number): tuple(printable(string(one)) for one in items(frames)) for number, frames in rows}


def _threads(content: bytes) -> dict[int, tuple[int, str]]:
    with _reading("names of threads cannot be read"):
        rows = (items(row, 3) for row in items(parse(content)))
        return {
            integer(tid, 0, _MOST_ID): (integer(pid, 0, _MOST_ID), printable(string(name))) for tid, pid, name in rows
        }


def _address(value: Any) -> int:
    return integer(value, 0, 2 * LARGEST + 1)


def _damaged(what: str) -> ProfileFormatError:
    return ProfileFormatError(f"the recording is damaged: {what}", "record it again")
