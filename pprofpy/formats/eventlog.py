"""Recorded events in a file (`.trace`): written as they come, readable up to its last whole block if it was cut short.

The first line marks the file as ours. Blocks follow: four letters that tell what it is, the length and the CRC-32 of
what comes, and the content, zlib-compressed: JSON, or records as the kernel's programs wrote them (see `events.log`).

    LOG_  JSON  what was watched: always the first
    RECS CALL STRS  records
    PATH  JSON  paths of open files
    SYMS  JSON  names of kernel addresses
    STKS  JSON  Python stacks in words
    SUMM  JSON  how it was recorded and what was lost: always the last

Nothing in it is executed or unpickled: a file from elsewhere can be opened without fear.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.events.log import CALL, CALL_WITH_STRINGS, Batch, EventLog, FdKey, Records, record_dtype
from pprofpy.events.tracepoint import parse_format
from pprofpy.profile import Collection
from pprofpy.text import printable

SUFFIX = ".trace"
MAGIC = b"pprofpy event log 2\n"

_BLOCK = struct.Struct("<4sII")
_LARGEST_BYTES = 1 << 30
_MOST_DATA_BYTES = 8192
_LEVEL = 1


class Writer:
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
            },
        )

    def add(self, batch: Batch) -> None:
        """Append events."""
        if batch.fd_paths:
            self._json(b"PATH", [[*key, path] for key, path in batch.fd_paths.items()])
        if batch.symbols:
            self._json(b"SYMS", list(batch.symbols.items()))
        if batch.stacks:
            self._json(b"STKS", list(batch.stacks.items()))
        for tag, records in ((b"RECS", batch.records), (b"CALL", batch.calls), (b"STRS", batch.calls_with_strings)):
            if len(records):
                self._block(tag, records.tobytes())

    def end(self, duration_ns: int, collection: Collection) -> None:
        """Write what is known only at the end."""
        self._json(b"SUMM", {"duration_ns": duration_ns, "collection": asdict(collection)})
        self._stream.flush()

    def _json(self, tag: bytes, data: Any) -> None:
        self._block(tag, json.dumps(data).encode())

    def _block(self, tag: bytes, content: bytes) -> None:
        packed = zlib.compress(content, _LEVEL)
        self._stream.write(_BLOCK.pack(tag, len(packed), zlib.crc32(packed)) + packed)


class Reader:
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
        if stream.read(len(MAGIC)) != MAGIC:
            raise ProfileFormatError("this is no recording of events", "record one with 'pprofpy trace -o FILE.trace'")
        first = self._next()
        if first is None or first[0] != b"LOG_":
            raise _damaged("it does not say what was watched")
        self.log = _log(first[1])
        self.duration_ns = 0
        self.collection = Collection(notes=("the recording was cut short: its end, and what was lost, is unknown",))

    def batches(self) -> Iterator[Batch]:
        """The events, in the portions they were written in.

        Raises:
            ProfileFormatError: A block contradicts itself. One that is not all there just ends the file.
        """
        names: dict[str, Any] = {"fd_paths": {}, "symbols": {}, "stacks": {}}
        dtypes = {b"RECS": record_dtype(self.log.data_bytes), b"CALL": CALL, b"STRS": CALL_WITH_STRINGS}
        places = {b"RECS": "records", b"CALL": "calls", b"STRS": "calls_with_strings"}
        while block := self._next():
            tag, content = block
            if tag == b"PATH":
                names["fd_paths"] = _paths(content)
            elif tag == b"SYMS":
                names["symbols"] = _symbols(content)
            elif tag == b"STKS":
                names["stacks"] = _stacks(content)
            elif tag == b"SUMM":
                self._finish(content)
            elif tag in dtypes:
                records = self._records(content, dtypes[tag])
                given: dict[str, Any] = {"records": np.zeros(0, dtypes[b"RECS"]), places[tag]: records}
                yield Batch(**given, **names)

    def _records(self, content: bytes, dtype: np.dtype[Any]) -> Records:
        if len(content) % dtype.itemsize:
            raise _damaged("a record is cut off")
        records: Records = np.frombuffer(content, dtype)
        if "data" in (dtype.names or ()) and (records["head"]["event"] >= len(self.log.tracepoints)).any():
            raise _damaged("an event of an unknown kind")
        return records

    def _finish(self, content: bytes) -> None:
        about = _loads(content)
        try:
            self.duration_ns = int(about["duration_ns"])
            self.collection = _collection(about["collection"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged("its end cannot be read") from error

    def _next(self) -> tuple[bytes, bytes] | None:
        """The next block; None at the end, also if that is in the middle of a block."""
        head = self._stream.read(_BLOCK.size)
        if len(head) < _BLOCK.size:
            return None
        tag, size, checksum = _BLOCK.unpack(head)
        packed = self._stream.read(size)
        if len(packed) < size:
            return None
        if zlib.crc32(packed) != checksum:
            raise _damaged("a checksum does not match")
        decompressor = zlib.decompressobj()
        try:
            content = decompressor.decompress(packed, _LARGEST_BYTES)
        except zlib.error as error:
            raise _damaged(str(error)) from error
        if decompressor.unconsumed_tail or not decompressor.eof:
            raise _damaged("a block is too large")
        return tag, content


def _loads(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged("a description cannot be read") from error


def _log(content: bytes) -> EventLog:
    about = _loads(content)
    try:
        tracepoints = tuple(
            parse_format(str(group), str(text), {str(name): int(value) for name, value in constants.items()})
            for group, text, constants in about["tracepoints"]
        )
        log = EventLog(tracepoints, int(about["data_bytes"]), int(about["start_ns"]), int(about["time_ns"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged("it does not say what was watched") from error
    if not max((one.size for one in tracepoints), default=8) <= log.data_bytes <= _MOST_DATA_BYTES:
        raise _damaged("records of an impossible size")
    return log


def _paths(content: bytes) -> dict[FdKey, str]:
    try:
        return {FdKey(int(pid), int(fd), int(inode)): str(path) for pid, fd, inode, path in _loads(content)}
    except (TypeError, ValueError) as error:
        raise _damaged("paths cannot be read") from error


def _symbols(content: bytes) -> dict[int, str]:
    try:
        return {int(address): str(name) for address, name in _loads(content)}
    except (TypeError, ValueError) as error:
        raise _damaged("symbols cannot be read") from error


def _stacks(content: bytes) -> dict[int, tuple[str, ...]]:
    try:
        return {int(number): tuple(map(printable, map(str, frames))) for number, frames in _loads(content)}
    except (TypeError, ValueError) as error:
        raise _damaged("stacks cannot be read") from error


def _collection(saved: dict[str, Any]) -> Collection:
    """A saved Collection; what does not fit is left out."""
    defaults = asdict(Collection())
    known = {name: saved[name] for name, value in defaults.items() if type(saved.get(name)) is type(value)}
    notes = saved.get("notes")
    known["notes"] = tuple(map(str, notes)) if isinstance(notes, list) else ()
    return Collection(**known)


def _damaged(what: str) -> ProfileFormatError:
    return ProfileFormatError(f"the recording is damaged: {what}", "record it again")
