"""Folders as descriptors: each step of a path is checked on what was opened, so that nobody can exchange it in between.

A path is text; what it names may be another file a moment later, wherever somebody else may write. So we open folder by
folder, ask the descriptor who owns it, and create, rename and read by (descriptor, name) alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from pprofpy.system.blocking import bounded
from pprofpy.system.interrupts import UNFINISHED
from pprofpy.system.rights import acting_user, as_user, owner

PROC_MAGIC = 0x9FA0
"""`f_type` of procfs (linux/magic.h)."""

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
"""As many as the kernel follows."""

_MOST_NAME_BYTES = 200
"""Of a file's name in that of its temporary file: NAME_MAX is 255."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_libc = ctypes.CDLL(None, use_errno=True)


class UntrustedError(PermissionError):
    """Something on the way belongs to another user, or may be changed by one; `strerror` says what."""

    def __init__(self, what: str) -> None:
        super().__init__(errno.EPERM, what)


def trusted_users() -> frozenset[int]:
    """Whose links and files we accept: root's, our own and, under sudo, those of the user who called it."""
    return frozenset({0, os.geteuid(), owner()})


def open_folder(path: Path, *, private: bool = False, create: bool = False) -> int:
    """Open a folder step by step. Links are followed only if their owner is trusted.

    Args:
        path: Where.
        private: Every folder on the way, too, must be root's or ours, and not to be written by others (in sticky ones
            on the way, they cannot exchange what is ours); the last one must not be sticky either.
        create: Make what is missing, with mode 0700.

    Returns:
        A descriptor (O_PATH) for use as `dir_fd`; the caller closes it.

    Raises:
        UntrustedError: The way leads through what others may change.
        OSError: There is no such folder, or it cannot be made.
    """
    folder = os.open("/" if path.is_absolute() else ".", _STEP | os.O_DIRECTORY)
    names, links = _parts(path), 0
    try:
        while names:
            name = names.pop()
            with _opened(_step(folder, name, create=create)) as entry:
                facts = os.fstat(entry)
                if stat.S_ISLNK(facts.st_mode):
                    links += 1
                    _check_link(facts, name, links)
                    found = _follow(entry, folder, name, names)
                else:
                    if private:
                        _check_private(facts, name, is_last=not names)
                    found = os.dup(entry)
            os.close(folder)
            folder = found
        if not stat.S_ISDIR(os.fstat(folder).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except BaseException:
        os.close(folder)
        raise
    return folder


@contextmanager
def opened_folder(path: Path, *, private: bool = False, create: bool = False) -> Iterator[int]:
    """`open_folder`, closed at the end."""
    with _opened(open_folder(path, private=private, create=create)) as folder:
        yield folder


def make_own_folder(place: Path, prefix: str) -> tuple[int, Path]:
    """Make a folder that nobody could have prepared or can enter, as mkdtemp does.

    Returns:
        Its descriptor, for the caller to close, and its path.
    """
    with opened_folder(place) as parent:
        name = prefix + secrets.token_hex(8)
        os.mkdir(name, 0o700, dir_fd=parent)
        folder = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=parent)
        if os.fstat(folder).st_uid != acting_user():
            os.close(folder)
            raise UntrustedError(f"{place / name} was exchanged by somebody")
        return folder, place / name


def create_beside(folder: int, name: str) -> tuple[int, str]:
    """Create a new file next to `name`, called `NAME.RANDOM.part`: nobody can foresee it, nothing is ever opened.

    Returns:
        A descriptor to write to, mode 0600, for the caller to close; and the file's name.
    """
    stem = os.fsencode(name)[:_MOST_NAME_BYTES].decode(sys.getfilesystemencoding(), "ignore")
    temporary = f"{stem}.{secrets.token_hex(8)}.part"
    UNFINISHED.add((folder, temporary))
    return os.open(temporary, _CREATE, 0o600, dir_fd=folder), temporary


def discard(folder: int, temporary: str) -> None:
    """Remove a temporary file."""
    UNFINISHED.discard((folder, temporary))
    with suppress(OSError):
        os.unlink(temporary, dir_fd=folder)


def place(folder: int, temporary: str, name: str, *, replace: bool) -> None:
    """Give a finished file its name.

    Args:
        folder: Where both are.
        temporary: The file's name so far.
        name: Its name from now on.
        replace: Replace what is called so (a link itself, never what it leads to).

    Raises:
        FileExistsError: The name is taken, and nothing is to be replaced.
    """
    if not replace:
        try:
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except PermissionError:  # a file system without links: look, and hope that nobody is faster
            with suppress(FileNotFoundError):
                os.stat(name, dir_fd=folder, follow_symlinks=False)
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        else:
            discard(folder, temporary)
            return
    os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    UNFINISHED.discard((folder, temporary))


def write_file(folder: int, name: str, data: bytes, *, replace: bool = True) -> None:
    """Write a whole file or nothing: under another name, flushed, then renamed. Mode 0600.

    Raises:
        FileExistsError: The name is taken, and nothing is to be replaced.
        OSError: It could not be written; nothing is left of it.
    """
    handle, temporary = create_beside(folder, name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(handle)
        place(folder, temporary, name, replace=replace)
    except BaseException:
        discard(folder, temporary)
        raise


def reopen(entry: int, flags: int) -> int:
    """Open for reading or writing what an O_PATH descriptor stands for: the same file, whatever its name is now."""
    return os.open(f"/proc/self/fd/{entry}", flags | os.O_CLOEXEC | os.O_NOCTTY)


def names_in(folder: int) -> list[str]:
    """What is in a folder, in no order."""
    with _opened(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)) as listed:
        return os.listdir(listed)  # noqa: PTH208 - of a descriptor


def own_file(folder: int, name: str) -> os.stat_result | None:
    """The facts about a file in a folder, if it is a regular one of ours or of root's; else None."""
    with suppress(OSError):
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(facts.st_mode) and facts.st_uid in trusted_users():
            return facts
    return None


def filesystem_type(descriptor: int) -> int:
    """The magic number of the file system that a descriptor lies on (statfs(2)).

    Raises:
        OSError: The kernel does not say.
    """
    buffer = (ctypes.c_long * 32)()
    if _libc.fstatfs(descriptor, buffer):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(buffer[0]) & 0xFFFFFFFF


def check_answers(path: Path, user: int) -> None:
    """Look at a place once, as a user, so that whoever goes there next does not sleep: its server may be gone.

    Raises:
        BlockedError: The file system does not answer in time.
    """

    def look() -> None:
        with suppress(OSError, ValueError), as_user(user):  # no path at all: whoever goes there says so
            path.stat()

    bounded(str(path), look)


# -- steps ---------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _parts(path: PurePath) -> list[str]:
    """The names on the way, the last one first."""
    return [name for name in reversed(path.parts) if name != path.anchor]


def _step(folder: int, name: str, *, create: bool) -> int:
    try:
        return os.open(name, _STEP, dir_fd=folder)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=folder)
    return os.open(name, _STEP, dir_fd=folder)


def _follow(link: int, folder: int, name: str, names: list[str]) -> int:
    """Where the way goes on after a link in `folder`: puts the link's own way before `names`."""
    if filesystem_type(link) == PROC_MAGIC:  # what these links say is no path: only the kernel can follow them
        return os.open(name, os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY, dir_fd=folder)
    target = PurePath(os.readlink("", dir_fd=link))
    names += _parts(target)
    return os.open("/", _STEP | os.O_DIRECTORY) if target.is_absolute() else os.dup(folder)


def _check_link(facts: os.stat_result, name: str, links: int) -> None:
    if links > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if facts.st_uid not in trusted_users():
        raise UntrustedError(f"{name!r} on the way is a link of another user (uid {facts.st_uid})")


def _check_private(facts: os.stat_result, name: str, *, is_last: bool) -> None:
    if facts.st_uid not in (0, os.geteuid()):
        raise UntrustedError(f"{name!r} on the way belongs to another user (uid {facts.st_uid})")
    if facts.st_mode & _OTHERS_WRITE and (is_last or not facts.st_mode & stat.S_ISVTX):
        raise UntrustedError(f"{name!r} on the way can be changed by other users")
