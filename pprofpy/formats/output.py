"""Where output goes: what may be written to, what only with `--force`, and how a file appears whole under its name."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pprofpy.errors import OutputError
from pprofpy.system.folders import check_answers, create_beside, discard, open_folder, place, reopen, trusted_users
from pprofpy.system.interrupts import UNFINISHED
from pprofpy.system.rights import as_user, owner

_SIGNATURE = b"pprofpy"
SIGNATURE_WITHIN_BYTES = 1024

_OWN_DESCRIPTOR = re.compile(r"/dev/(?:(stdin|stdout|stderr)|fd/(\d{1,6}))|/proc/self/fd/(\d{1,6})")
_STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}

_TERMINALS = frozenset({4, 5, *range(136, 144)})
"""Major device numbers of consoles, serial lines and pseudo terminals (Documentation/admin-guide/devices.txt)."""

_SINKS = frozenset({os.makedev(1, 3), os.makedev(1, 7)})
"""/dev/null and /dev/full."""

_FORCE = "choose another name, or give --force"


def own_descriptor(path: str | os.PathLike[str]) -> int | None:
    """The descriptor of ours that a name such as /dev/stdout or /dev/fd/63 stands for."""
    match = _OWN_DESCRIPTOR.fullmatch(os.fspath(path))
    return (_STANDARD[match[1]] if match[1] else int(match[2] or match[3])) if match else None


@contextmanager
def writing(path: Path, *, force: bool = False, keep_parts: bool = False) -> Iterator[BinaryIO]:
    """A stream into what will be the file `path`, mode 0600: it gets its name when it is complete and on the disk.

    Pipes and terminals are written to directly. No link is followed.

    Args:
        path: Where to.
        force: Replace, or write to, what is not ours.
        keep_parts: When something fails, keep what was written so far, as `NAME.RANDOM.part`.

    Raises:
        OutputError: It cannot be written there, or must not.
    """
    kept: list[str] = []
    try:
        with _refusals(path), _destination(path, force=force) as found:
            if found.direct >= 0:
                handle = os.dup(found.direct) if found.is_open else reopen(found.direct, os.O_WRONLY)
                with stream_of(handle, path) as stream, _body():
                    yield stream
            else:
                with _new_file(found, path, kept if keep_parts else None) as stream, _body():
                    yield stream
    except _BodyError as error:
        raise error.cause from error.cause.__cause__
    except OutputError as error:
        if not kept:
            raise
        raise OutputError(
            f"{error.message}; what was written so far is in {path.with_name(kept[0])}", error.hint
        ) from error


def check_free(path: Path, *, force: bool = False) -> None:
    """Would `writing` write here? To be asked before a long recording, not after.

    Raises:
        OutputError: The folder does not exist, or the name is taken by what is not ours.
    """
    with _refusals(path), _destination(path, force=force):
        pass


def is_direct(path: Path) -> bool:
    """Is it a pipe or a device: something whose name says nothing about the format?"""
    with suppress(OSError, OutputError), _destination(path, force=True) as found:
        return found.direct >= 0
    return False


@contextmanager
def places(path: Path) -> Iterator[tuple[int, int]]:
    """What `writing` there needs to change: its folder's descriptor, or that of the pipe or device itself, else -1.

    Raises:
        OSError: There is no such folder.
        OutputError: The path cannot be written to.
    """
    with _destination(path, force=True) as found:
        yield found.folder, -1 if found.is_open else found.direct


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What the system refuses, in our own words, with what to do."""
    try:
        yield
    except OSError as error:
        hint = "write elsewhere with -o FILE, or to standard output with -o -"
        if error.errno == errno.ENOENT:
            hint = f"the folder {path.parent} does not exist: mkdir -p {path.parent}"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "free some space, or write elsewhere with -o"
        raise OutputError(f"cannot write {path}: {error.strerror or error}", hint) from error


class _BodyError(Exception):
    """An OSError of the one who writes, on its way past our own handlers: it is not about the file."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextmanager
def _body() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _BodyError(error) from error


class _File(io.FileIO):
    """A file whose errors are OutputErrors, wherever in the writer's code they happen."""

    def __init__(self, handle: int, path: Path) -> None:
        super().__init__(handle, "wb")
        self._path = path

    def write(self, data: Any, /) -> int:
        with _refusals(self._path):
            return super().write(data)


def stream_of(handle: int, path: Path) -> BinaryIO:
    """A stream into an open file, which it closes; what cannot be written is an OutputError that names `path`."""
    return io.BufferedWriter(_File(handle, path), 1 << 16)


@dataclass(slots=True)
class _Destination:
    """A name in an open folder, or what is written to as it is.

    Attributes:
        folder, name: Where the file is to be.
        is_new: There is no such file yet.
        direct: The descriptor of a pipe or device, else -1. O_PATH unless `is_open`.
        is_open: It is a descriptor that we inherited.
    """

    folder: int
    name: str
    is_new: bool = False
    direct: int = -1
    is_open: bool = False


@contextmanager
def _destination(path: Path, *, force: bool) -> Iterator[_Destination]:
    descriptor = own_descriptor(path)
    if descriptor is not None:
        os.fstat(descriptor)
        yield _Destination(-1, "", direct=descriptor, is_open=True)
        return
    if path.name in ("", ".."):
        raise _is_folder(path)
    check_answers(path, os.geteuid())
    folder = open_folder(path.parent)
    entry = -1
    try:
        with suppress(FileNotFoundError):
            entry = os.open(path.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        kind = stat.S_IFMT(os.fstat(entry).st_mode) if entry >= 0 else stat.S_IFREG
        if kind == stat.S_IFDIR:
            raise _is_folder(path)
        if entry >= 0 and not force and (complaint := _complaint(entry)):
            raise OutputError(f"{path} {complaint}", _FORCE)
        is_file = kind in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFSOCK)
        yield _Destination(folder, path.name, is_new=entry < 0, direct=-1 if is_file else entry)
    finally:
        for one in (folder, entry):
            if one >= 0:
                os.close(one)


def _is_folder(path: Path) -> OutputError:
    return OutputError(f"{path} is a folder", f"name a file in it: -o {path}/profile.pb.gz")


def _complaint(entry: int) -> str:
    """Why this must not be written to or replaced unless the user insists; empty if it may be."""
    facts = os.fstat(entry)
    kind = stat.S_IFMT(facts.st_mode)
    if kind == stat.S_IFLNK:
        return f"is a link (to {os.readlink('', dir_fd=entry)}): pprofpy does not write through links"
    if kind == stat.S_IFBLK:
        return "is a block device: writing there would destroy what is stored on it"
    if kind == stat.S_IFCHR:
        return "" if facts.st_rdev in _SINKS or os.major(facts.st_rdev) in _TERMINALS else "is a device"
    if facts.st_uid not in trusted_users():
        return f"belongs to another user (uid {facts.st_uid})"
    if kind == stat.S_IFREG:
        return "" if _is_ours(entry) else "exists, and nothing in it says that pprofpy wrote it"
    return "" if kind == stat.S_IFIFO else "is a socket"


def _is_ours(entry: int) -> bool:
    """Did pprofpy write this file? All that it writes says so near its beginning; an empty file may be replaced."""
    with os.fdopen(reopen(entry, os.O_RDONLY), "rb") as stream:
        head = stream.read(SIGNATURE_WITHIN_BYTES)
    return not head or _SIGNATURE in head


def _create(found: _Destination) -> tuple[int, str]:
    """A temporary file; where the user who called sudo may write, it is that one's, to be read without sudo."""
    with suppress(PermissionError), as_user(owner()):
        return create_beside(found.folder, found.name)
    return create_beside(found.folder, found.name)


@contextmanager
def _new_file(found: _Destination, path: Path, kept: list[str] | None) -> Iterator[BinaryIO]:
    """A file that gets its name at the end; after a failure, `kept` (if given) gets the name of what was written."""
    handle, temporary = _create(found)
    if kept is not None:
        UNFINISHED.discard((found.folder, temporary))  # even if we end at once, what was written is kept
    try:
        with stream_of(handle, path) as stream:
            yield stream
            stream.flush()
            os.fsync(handle)
        place(found.folder, temporary, found.name, replace=not found.is_new)
    except BaseException:
        if kept is not None and os.stat(temporary, dir_fd=found.folder).st_size:
            kept.append(temporary)
        else:
            discard(found.folder, temporary)
        raise
