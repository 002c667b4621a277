"""The profile folder: which recordings lie in it, and which of them may go."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pprofpy.formats import eventlog, pprof
from pprofpy.formats import recording as file_format
from pprofpy.formats.files import in_profile_folder, profile_folder, require_folder
from pprofpy.formats.recording import Summary
from pprofpy.formats.spool import SUFFIX as SPOOL_SUFFIX
from pprofpy.formats.spool import is_being_written
from pprofpy.system.folders import names_in, own_file

PROFILE_SUFFIX = ".pb.gz"
SUFFIXES = (PROFILE_SUFFIX, SPOOL_SUFFIX, eventlog.SUFFIX, ".svg", ".json", ".collapsed")
"""Files with other endings are nobody's recordings."""

RUNNING, UNFINISHED = "running", "cut short"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in the folder.

    Attributes:
        path: Where.
        size_bytes: How large.
        mtime_ns: When it was last written, Unix time.
        summary: What it says of itself; the kind at least is told by the name.
        state: RUNNING while a recording is still being made, UNFINISHED if one was cut short; else empty.
    """

    path: Path
    size_bytes: int
    mtime_ns: int
    summary: Summary
    state: str = ""


def recordings() -> list[Entry]:
    """What is in the profile folder, newest first: files of ours, neither links nor pipes that somebody put there.

    Raises:
        ProfileFormatError: The folder does not answer.
    """
    require_folder()
    place = profile_folder()
    found: list[Entry] = []
    with suppress(OSError), in_profile_folder() as folder:
        for name in names_in(folder):
            if name.endswith(SUFFIXES) and (facts := own_file(folder, name)):
                about = _summary(folder, name), _state(folder, name)
                found.append(Entry(place / name, facts.st_size, facts.st_mtime_ns, *about))
    return sorted(found, key=lambda entry: (-entry.mtime_ns, entry.path.name))


def too_old(entries: Iterable[Entry], oldest_ns: int) -> list[Entry]:
    """Those that were last written before a moment (Unix time) and are complete, or never will be."""
    return [entry for entry in entries if entry.mtime_ns < oldest_ns and entry.state != RUNNING]


def too_many(entries: Iterable[Entry], largest_bytes: int) -> list[Entry]:
    """The oldest ones, so that the others take at most so many bytes; a recording that is going on stays."""
    beyond, total = [], 0
    for entry in sorted(entries, key=lambda entry: (-entry.mtime_ns, entry.path.name)):
        total += entry.size_bytes
        if total > largest_bytes and entry.state != RUNNING:
            beyond.append(entry)
    return beyond


def remove(entries: Iterable[Entry]) -> int:
    """Delete files of the folder; returns how many bytes that freed."""
    freed = 0
    with suppress(OSError), in_profile_folder() as folder:
        for entry in entries:
            with suppress(OSError):
                os.unlink(entry.path.name, dir_fd=folder)
                freed += entry.size_bytes
    return freed


def _summary(folder: int, name: str) -> Summary:
    saved = Summary()
    if name.endswith(PROFILE_SUFFIX):
        with suppress(OSError):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                saved = file_format.read_summary(os.pread(file, pprof.SUMMARY_WITHIN_BYTES, 0))
            finally:
                os.close(file)
    return saved if saved.kind else Summary(_kind_in(name), saved.target, saved.time_ns, saved.duration_ns)


def _kind_in(name: str) -> str:
    """The command that a file's name begins with."""
    return next((kind for kind in _KINDS if name.startswith(f"{kind}-")), "")


def _state(folder: int, name: str) -> str:
    if not name.endswith((SPOOL_SUFFIX, eventlog.SUFFIX)):
        return ""
    if is_being_written(folder, name):
        return RUNNING
    return UNFINISHED if name.endswith(SPOOL_SUFFIX) else ""


_KINDS = ("cpu", "heap-first", "heap", "off-cpu", "gil", "sched-latency", "events", "trace")
