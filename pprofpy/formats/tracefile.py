"""Traces in files: a zip archive of the events (fixed-size records) and a JSON document about them.

Nothing in it is ever executed or unpickled: a file from elsewhere can be opened without fear.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict
from typing import Any

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.profile import Collection
from pprofpy.trace import RECORD, Thread, Trace

SUFFIX = ".trace.zip"

_ABOUT = "pprofpy.json"  # the first name in the archive: it marks the file as ours
_RECORDS = "records.bin"
_LAYOUT = [list(field) for field in RECORD.descr]
_LARGEST_ABOUT_BYTES = 64 << 20


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
            if archive.getinfo(_ABOUT).file_size > _LARGEST_ABOUT_BYTES:
                raise ValueError("its description is too large")
            about = json.loads(archive.read(_ABOUT))
            if about["layout"] != _LAYOUT:
                raise ValueError("its events are of another kind")
            records = np.frombuffer(archive.read(_RECORDS), RECORD)
        return Trace(
            records,
            {int(tid): _thread(*row) for tid, row in about["threads"].items()},
            int(about["start_ns"]),
            int(about["time_ns"]),
            int(about["duration_ns"]),
            _collection(about["collection"]),
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
    ) as error:
        raise ProfileFormatError(
            f"this is no trace of pprofpy's, or it is damaged: {error}",
            "record one with 'pprofpy sched-latency --trace'",
        ) from error


def _thread(pid: Any, name: Any, watched: Any) -> Thread:
    return Thread(int(pid), str(name), bool(watched))


def _collection(saved: dict[str, Any]) -> Collection:
    """A saved Collection; what does not fit is left out."""
    defaults = asdict(Collection())
    known = {name: saved[name] for name, value in defaults.items() if type(saved.get(name)) is type(value)}
    notes = saved.get("notes")
    known["notes"] = tuple(map(str, notes)) if isinstance(notes, list) else ()
    return Collection(**known)
