"""Traces in files: a zip archive of the events (fixed-size records) and a JSON document about them.

Nothing in it is ever executed or unpickled: a file from elsewhere can be opened without fear.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.formats.document import LARGEST, collection, integer, items, members, number_in, parse, string
from pprofpy.formats.limits import unpacked_limit
from pprofpy.model.trace import RECORD, Context, Kind, Thread, Trace

SUFFIX = ".trace.zip"

_ABOUT = "pprofpy.json"  # the first name in the archive: it marks the file as ours
_RECORDS = "records.bin"
_LAYOUT = [list(field) for field in RECORD.descr]
_LARGEST_ABOUT_BYTES = 16 << 20
_MOST_ID = 2**32 - 1


def write(trace: Trace) -> bytes:
    """Encode a trace."""
    buffer = io.BytesIO()
    about = {
        "layout": _LAYOUT,
        "start_ns": trace.start_ns,
        "time_ns": trace.time_ns,
        "duration_ns": trace.duration_ns,
        "collection": asdict(trace.collection),
        "threads": {tid: list(thread) for tid, thread in trace.threads.items()},
    }
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(_ABOUT, json.dumps(about))
        archive.writestr(_RECORDS, trace.records.tobytes())
    return buffer.getvalue()


def read(data: bytes) -> Trace:
    """Decode a trace.

    Raises:
        ProfileFormatError: It is none, or damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            about = members(parse(_content(archive, _ABOUT, _LARGEST_ABOUT_BYTES)))
            if about["layout"] != _LAYOUT:
                raise ValueError("its events are of another kind")
            records = np.frombuffer(_content(archive, _RECORDS, unpacked_limit(len(data))), RECORD)
        _check(records)
        return Trace(
            records,
            {number_in(tid, 0, _MOST_ID): _thread(*items(row, 3)) for tid, row in members(about["threads"]).items()},
            integer(about["start_ns"]),
            integer(about["time_ns"]),
            integer(about["duration_ns"]),
            collection(about["collection"]),
        )
    except (
        zlib.error,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
        OSError,
        RecursionError,
        IndexError,
        struct.error,
    ) as error:
        raise ProfileFormatError(
            f"this is no trace of pprofpy's, or it is damaged: {error}",
            "record one with 'pprofpy sched-latency --trace'",
        ) from error


def _content(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A file of the archive, unpacked no further than allowed, whatever the archive says of its size."""
    with archive.open(name) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{name} unpacks to more than {most} bytes")
    return content


def _check(records: np.ndarray[Any, Any]) -> None:
    """Refuse events that are none: everything that reads them relies on it."""
    latest = np.uint64(LARGEST)
    if (records["kind"] > max(Kind)).any() or (records["ts_ns"] > latest).any() or (records["wait_ns"] > latest).any():
        raise ValueError("an event of an unknown kind, or at an impossible time")
    if (records["context"] > max(Context)).any():
        raise ValueError("an event in an unknown context")


def _thread(pid: Any, name: Any, watched: Any) -> Thread:
    return Thread(integer(pid, 0, _MOST_ID), string(name), bool(watched))
