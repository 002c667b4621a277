"""Traces in files: a zip archive of the events (a NumPy array) and a JSON document about them.

Nothing in it is ever executed or unpickled: a file from elsewhere can be opened without fear.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict
from typing import Any

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.profile import Collection
from pprofpy.trace import RECORD, Thread, Trace

SUFFIX = ".trace.zip"

_ABOUT = "pprofpy.json"  # the first name in the archive: it marks the file as ours
_RECORDS = "records.npy"
_LARGEST_ABOUT_BYTES = 64 << 20


def write(trace: Trace) -> bytes:
    """Encode a trace."""
    buffer = io.BytesIO()
    about = {
        "start_ns": trace.start_ns,
        "time_ns": trace.time_ns,
        "duration_ns": trace.duration_ns,
        "collection": asdict(trace.collection),
        "threads": {tid: list(thread) for tid, thread in trace.threads.items()},
    }
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(_ABOUT, json.dumps(about))
        with archive.open(_RECORDS, "w", force_zip64=True) as stream:
            np.lib.format.write_array(stream, trace.records, allow_pickle=False)
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
            with archive.open(_RECORDS) as stream:
                records = np.lib.format.read_array(stream, allow_pickle=False)
        if records.dtype != RECORD or records.ndim != 1:
            raise ValueError("its events are of another kind")
        return Trace(
            records,
            {int(tid): _thread(*row) for tid, row in about["threads"].items()},
            int(about["start_ns"]),
            int(about["time_ns"]),
            int(about["duration_ns"]),
            _collection(about["collection"]),
        )
    except (
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
