"""Keeps source with a recording of a process that sees other files than we do: nobody finds them here later."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from pprofpy.formats import archives
from pprofpy.formats.source_text import LARGEST_BYTES, decoded
from pprofpy.model.profile import Profile
from pprofpy.model.recording import Recording
from pprofpy.model.sources import KeptSource, with_sources
from pprofpy.target import Target, Watched, procfs
from pprofpy.target.named_files import NamedFiles, TargetFile

_MOST_BYTES, _MOST_SECONDS = 8 << 20, 2.0
"""For all of a recording; the files with most samples come first."""


def keep_sources(recording: Recording, target: Watched | None) -> Recording:
    """The recording, with its source if the process's files are not ours; none is left of one that has ended."""
    if target is None or not any(map(_sees_other_files, target.members)):
        return recording
    return with_sources(recording, _sources(recording.profile, target.members))


def _sees_other_files(target: Target) -> bool:
    if target.in_other_mount_namespace:
        return True
    with suppress(OSError):
        return procfs.root(target.pid) != procfs.root("self")
    return False


def _sources(profile: Profile, targets: Sequence[Target]) -> Iterator[KeptSource]:
    """The files that all processes which have them agree on: a profile does not tell whose file a function is of."""
    roots = [NamedFiles(target.root, target.pid) for target in targets]
    left, deadline = _MOST_BYTES, time.monotonic() + _MOST_SECONDS
    for filename in _by_samples(profile):
        found: dict[bytes, int] = {}
        for files in roots:
            if left <= 0 or time.monotonic() > deadline:
                return
            with suppress(OSError, ValueError):
                content, mtime_ns = _read(files, filename)
                left -= len(content)
                found[content] = max(mtime_ns, found.get(content, 0))
        if len(found) == 1:
            ((content, mtime_ns),) = found.items()
            with suppress(ValueError):
                yield KeptSource(filename, "\n".join(decoded(content)) + "\n", mtime_ns)


def _by_samples(profile: Profile) -> list[str]:
    """The files that the profile names, those first that most samples lead through."""
    counts: dict[str, int] = {}
    for stack, _, _ in profile.samples():
        for filename in {frame.function.filename for frame in stack}:
            counts[filename] = counts.get(filename, 0) + 1
    return sorted((name for name in counts if name.startswith("/")), key=lambda name: -counts[name])


def _read(files: NamedFiles, filename: str) -> tuple[bytes, int]:
    """A file's content, and when it was last changed."""
    if place := archives.split(filename):
        archive, name = place
        with suppress(OSError), files.open(archive) as file:
            return archives.member(_whole(file, archives.LARGEST_ARCHIVE_BYTES), name), file.identity[-1]
    with files.open(filename) as file:
        return _whole(file, LARGEST_BYTES), file.identity[-1]


def _whole(file: TargetFile, most: int) -> bytes:
    if file.size > most:
        raise OSError("larger than any source")
    return file.read(0, file.size)
