"""The windows of a recording that is still going on, in a file of the profile folder: what a crash leaves can be read.

The first line marks the file as ours. Blocks follow: length and CRC-32 of what comes, and a recording as
`formats.recording` writes it. Whoever writes holds a lock on the file; when that is gone, nobody will finish it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Self

from pprofpy.errors import ProfileFormatError
from pprofpy.formats import recording as file_format
from pprofpy.model.merge import merge_recordings
from pprofpy.model.profile import Profile
from pprofpy.model.recording import Recording
from pprofpy.system.folders import reopen
from pprofpy.system.rights import as_user, owner

MAGIC = b"pprofpy spool 1\n"
SUFFIX = ".spool"

CUT_SHORT = "The recording was cut short: what its last seconds held is not in it."

_BLOCK = struct.Struct("<II")
_MOST_WINDOWS = 450
"""One more, and the older half becomes one: an hour of windows of 8 s."""


class Spool:
    """Windows on disk, as far as that is possible; the others are kept in memory.

    Args:
        folder: A descriptor of the folder for the file; -1 if there is none. Not closed here.
        name: The file's name.
    """

    def __init__(self, folder: int, name: str) -> None:
        self._folder, self._name = folder, name
        self._file = _create(folder, name) if folder >= 0 else -1
        self._length = len(MAGIC)
        self._kept: list[bytes] = []
        self._count = 0
        self.problem = "" if self._file >= 0 else "no file could be made for it"

    def append(self, window: Recording) -> None:
        """Add a window. If the file takes no more, it is kept in memory, and `problem` says why."""
        self._kept.append(_block(file_format.write(window)))
        self._count += 1
        self._flush()
        if self._count > _MOST_WINDOWS:
            self._compact()

    @property
    def is_saved(self) -> bool:
        """Is there a window in the file?"""
        return self._length > len(MAGIC)

    def recording(self) -> Recording | None:
        """All windows as one recording; None if there is none yet.

        Raises:
            ProfileFormatError: Somebody else has changed the file.
        """
        windows = list(self._windows())
        return merge_recordings(windows) if windows else None

    def clear(self) -> None:
        """Forget all windows: the recording begins anew."""
        self._kept, self._count, self._length = [], 0, len(MAGIC)
        if self._file >= 0:
            os.ftruncate(self._file, self._length)

    def discard(self) -> None:
        """Remove the file: what it held is saved elsewhere, or not wanted."""
        if self._file >= 0:
            with suppress(OSError), as_user(owner()):
                os.unlink(self._name, dir_fd=self._folder)
        self.close()

    def close(self) -> None:
        """Let go of the file, which stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _flush(self) -> None:
        """Move to the file what is only in memory. What does not fit wholly is taken back."""
        if self._file < 0:
            return
        try:
            while self._kept:
                _write(self._file, self._kept[0], self._length)
                os.fdatasync(self._file)
                self._length += len(self._kept.pop(0))
            self.problem = ""
        except OSError as error:
            self.problem = error.strerror or str(error)
            with suppress(OSError):
                os.ftruncate(self._file, self._length)

    def _windows(self) -> Iterator[Recording]:
        if self._file >= 0:
            yield from _recordings(os.pread(self._file, self._length, 0))
        yield from map(file_format.read_pprof, (block[_BLOCK.size :] for block in self._kept))

    def _compact(self) -> None:
        """Merge the older half of the windows, so that neither the file nor its reader grows with time alone."""
        self._count = _MOST_WINDOWS // 2  # whether or not it can be done: not to be tried again with each window
        # Not in place: a crash in between must leave the old windows or the new ones.
        temporary = _create(self._folder, f"{self._name}.new") if self._file >= 0 else -1
        if temporary < 0 <= self._file:
            return
        windows = list(self._windows())
        half = len(windows) // 2
        merged = [merge_recordings(windows[:half]), *windows[half:]]
        self._kept = [_block(file_format.write(window)) for window in merged]
        if temporary >= 0:
            os.close(self._file)
            self._file, self._length = temporary, len(MAGIC)
            self._flush()
            with suppress(OSError), as_user(owner()):  # of the folder, who may have removed either
                os.rename(f"{self._name}.new", self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)


def read(data: bytes) -> Profile:
    """The profile of a recording that was cut short; see `read_recording`."""
    return read_recording(data).profile


def read_recording(data: bytes) -> Recording:
    """All windows of a file as one recording. A block that is not all there ends the file.

    Raises:
        ProfileFormatError: It is no such file, or holds no whole window.
    """
    if not data.startswith(MAGIC):
        raise ProfileFormatError("this is no unfinished recording of pprofpy's")
    windows = list(_recordings(data))
    if not windows:
        raise ProfileFormatError("the recording was cut short before its first window", "record it again")
    found = merge_recordings(windows)
    collection = found.profile.collection
    profile = replace(found.profile, collection=replace(collection, notes=(*collection.notes, CUT_SHORT)))
    return replace(found, profile=profile)


def create_locked(folder: int, name: str) -> int:
    """Make a file of the user's that `is_being_written` until its descriptor, which is returned, is closed.

    Raises:
        FileExistsError: The name is taken.
        OSError: It cannot be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with as_user(owner()):
        file = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file


def is_being_written(folder: int, name: str) -> bool:
    """Does a living pprofpy still write to this file?"""
    with suppress(OSError):
        entry = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            file = reopen(entry, os.O_RDONLY | os.O_NONBLOCK)
        finally:
            os.close(entry)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
    return False


def _recordings(data: bytes) -> Iterator[Recording]:
    position = len(MAGIC)
    while position + _BLOCK.size <= len(data):
        size, checksum = _BLOCK.unpack_from(data, position)
        content = data[position + _BLOCK.size : position + _BLOCK.size + size]
        if not size or len(content) < size or zlib.crc32(content) != checksum:
            return
        yield file_format.read_pprof(content)
        position += _BLOCK.size + size


def _block(content: bytes) -> bytes:
    return _BLOCK.pack(len(content), zlib.crc32(content)) + content


def _create(folder: int, name: str) -> int:
    """A new file that begins as it should and is locked; -1 if it cannot be made."""
    file = -1
    try:
        file = create_locked(folder, name)
        _write(file, MAGIC, 0)
    except OSError:
        if file >= 0:
            os.close(file)
        return -1
    return file


def _write(file: int, content: bytes, at: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(file, content[done:], at + done)
