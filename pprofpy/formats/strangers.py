"""What a file is that pprofpy does not read: other tools' formats, called by their names.

Source: src/runtime/pprof/pprof.go of Go (debug=1, debug=2), internal/profile/legacy_profile.go of
github.com/google/pprof; perf.data-file-format.txt of the kernel's tools/perf; the tools' own files.
"""

from __future__ import annotations

import struct
from typing import Any

from pprofpy.errors import ProfileFormatError

_FETCH_PPROF = "fetch it without debug=1: that gives profile.proto, which pprofpy reads"
_CONVERT_PPROF = "convert it: 'pprof -proto -output x.pb.gz FILE'"
_COLLAPSE_PERF = "convert it: 'perf script -i FILE | stackcollapse-perf.pl > x.folded'"
_RECORD = "pprofpy reads pprof (.pb.gz), speedscope (.json) and collapsed stacks"

_BEGINNINGS = (
    (b"heap profile:", "a heap profile in the old text format of Go and gperftools", _FETCH_PPROF),
    (b"goroutine profile:", "Go's list of goroutines as text", _FETCH_PPROF),
    (b"threadcreate profile:", "Go's list of thread creations as text", _FETCH_PPROF),
    (b"goroutine ", "Go's stacks of all goroutines (debug=2)", _FETCH_PPROF),
    (b"--- contention", "a contention profile in the old text format of Go and gperftools", _FETCH_PPROF),
    (b"--- mutex:", "a mutex profile in Go's old text format", _FETCH_PPROF),
    (b"--- threadz", "a list of threads in gperftools' old text format", _CONVERT_PPROF),
    (b"--- symbol", "a profile with symbols in gperftools' old format", _CONVERT_PPROF),
    (b"PERFILE2", "a recording of perf", _COLLAPSE_PERF),
    (b"MOJO", "a binary recording of austin", "convert it: 'mojo2austin FILE x.folded'"),
    (b"memray\0", "a recording of memray", "show it with memray"),
    (b"\x7fELF", "a program or library", _RECORD),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"\x1b[", "a terminal's output with colours", _RECORD),
    *(
        (beginning, "markup (SVG, HTML or XML)", "give the recording that a picture was drawn from")
        for beginning in (b"<svg", b"<?xml", b"<!", b"<html")
    ),
)
_MEMBERS = (
    ("traceEvents", "a trace for Chrome or Perfetto"),
    ("nodes", "a CPU profile of Chrome or Node.js (.cpuprofile)"),
    ("alloc_samples", "a recording of scalene"),
    ("libs", "a profile for the Firefox profiler"),
)
_LEGACY_CPU = tuple(struct.pack(f"{order}5{word}", 0, 3, 0, 0, 0)[: 3 * struct.calcsize(word)]
                    for order in "<>" for word in "IQ")  # fmt: skip
"""Five words: 0, 3, 0, the period, 0. Source: parseCPU in legacy_profile.go."""


def refuse_by_content(data: bytes) -> None:
    """Raise ProfileFormatError, naming the format, if a file begins as one that pprofpy does not read."""
    for beginning, what, hint in _BEGINNINGS:
        if data.startswith(beginning):
            raise _refused(what, hint)
    if data.startswith(_LEGACY_CPU):
        raise _refused("a CPU profile in the old binary format of gperftools", _CONVERT_PPROF)


def refuse_by_members(document: dict[str, Any]) -> None:
    """Raise ProfileFormatError, naming the format, if a JSON object is one of another tool."""
    for member, what in _MEMBERS:
        if member in document:
            raise _refused(what, _RECORD)


def _refused(what: str, hint: str) -> ProfileFormatError:
    return ProfileFormatError(f"this is {what}, which pprofpy does not read", hint)
