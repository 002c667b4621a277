"""Files that a target names: opened so that none of ours is meant, nothing blocks, and nothing is read without end.

A target chooses what its paths lead to: a link to a file of ours, a FIFO that nobody writes to, a device, eight
terabytes of nothing, a file system of its own that never answers; and it may replace or shorten a file while we read
it. So a path is walked within the target's own root, links included; what lies there is inspected before it is opened,
and only regular files are; files are read by `pread`, never mapped: whoever has a file mapped that is cut short gets
SIGBUS; and all of it is bounded in time. What a process only names is opened with its user's rights: root would read
for it what it may not read itself. (What it has mapped, it could.)
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from pprofpy.system import folders
from pprofpy.system.blocking import bounded
from pprofpy.system.rights import NOBODY, as_user
from pprofpy.target import mounts, procfs
from pprofpy.target.procfs import MappedArea, Process
from pprofpy.target.status import MalformedError

MOST_BYTES = 128 << 20
"""What is read at once at most. The symbol names of the largest libraries (libtorch, libxul) are half of that."""

_MOST_LINKS, _MOST_FOLDERS = 40, 256
_LONGEST_PATH = 4096
_INSPECT = os.O_PATH | os.O_CLOEXEC


class TargetFile:
    """A regular file that a target named, open for reading.

    Args:
        descriptor: Of the file; the object closes it.
        subject: Whose it is, for errors.

    Attributes:
        identity: Tells its content from that of any other file, and from its own after it was written to.
        size: In bytes, when it was opened.
    """

    def __init__(self, descriptor: int, subject: str) -> None:
        self._descriptor = descriptor
        self._subject = subject
        status = os.fstat(descriptor)
        self.identity = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        self.size = status.st_size

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on; fewer at the file's end.

        Raises:
            OSError: The file cannot be read, or its server does not answer, or EFBIG: more than MOST_BYTES were asked
                for, and exist.
        """
        size = min(size, self.size - offset)
        if offset < 0 or size <= 0:
            return b""
        if size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"more than {MOST_BYTES >> 20} MB in one piece")
        return bounded(self._subject, lambda: os.pread(self._descriptor, size, offset))

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_mapped(pid: int, mapping: MappedArea) -> TargetFile:
    """The file that is mapped into a process: the mapped one itself, although another may bear its name by now.

    Raises:
        OSError: It cannot be reached, or is no regular file.
    """
    if not mapping.inode:
        raise OSError(errno.ENOENT, "no file is mapped there")
    return bounded(_files_of(pid), lambda: _open_mapped(pid, mapping))


def _open_mapped(pid: int, mapping: MappedArea) -> TargetFile:
    folder = procfs.folder_of(pid)
    try:
        inspected = os.open(folder / "map_files" / f"{mapping.start:x}-{mapping.end:x}", _INSPECT)
    except OSError:  # the kernel wants CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE for these
        inspected = _walk(folder / "root", mapping.path, pid)
        if not _is_mapped(os.fstat(inspected), mapping):
            os.close(inspected)
            raise OSError(errno.ESTALE, "another file has taken its name") from None
    return _open_inspected(inspected, pid, _files_of(pid))


def open_program(pid: int) -> TargetFile:
    """The program of a process, although another may bear its name by now.

    Raises:
        OSError: It cannot be reached, or is no regular file.
    """
    program, subject = procfs.folder_of(pid) / "exe", _files_of(pid)
    return bounded(subject, lambda: _open_inspected(os.open(program, _INSPECT), pid, subject))


class NamedFiles:
    """The files that a process names: what its user may read of them below its root folder.

    Args:
        root: The process's root folder, as reached from here.
        pid: The process, or one that sees the same files.
    """

    def __init__(self, root: Path, pid: Process = "self") -> None:
        self._root, self._pid = root, pid
        self._subject = f"a file below {root}" if pid == "self" else _files_of(pid)
        self._user = _user_of(pid)

    def open(self, path: str) -> TargetFile:
        """The file that a path leads to.

        Raises:
            OSError: There is none, the process may not read it, or it is no regular file.
        """
        return bounded(self._subject, lambda: self._open(path))

    def has(self, path: str) -> bool:
        """Is there a regular file? One that does not answer is none."""
        try:
            return bounded(self._subject, lambda: self._is_file(path))
        except OSError:
            return False

    def _open(self, path: str) -> TargetFile:
        with as_user(self._user):
            return _open_inspected(_walk(self._root, path, self._pid), self._pid, self._subject)

    def _is_file(self, path: str) -> bool:
        with as_user(self._user):
            inspected = _walk(self._root, path, self._pid)
        try:
            return stat.S_ISREG(os.fstat(inspected).st_mode)
        finally:
            os.close(inspected)


def _user_of(pid: Process) -> int:
    """As the process itself says: its folder in /proc belongs to root once it has forbidden others to inspect it."""
    try:
        return procfs.status(pid).user
    except (OSError, MalformedError):  # it has ended
        return NOBODY


def _files_of(pid: Process) -> str:
    return f"a file of process {pid}"


def _open_inspected(inspected: int, pid: Process, subject: str) -> TargetFile:
    """Open for reading what was only looked at so far. Nothing but a regular file: opening alone may rewind a tape."""
    try:
        mounts.check(mounts.of_own(inspected), pid)
        if not stat.S_ISREG(os.fstat(inspected).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return TargetFile(folders.reopen(inspected, os.O_RDONLY | os.O_NONBLOCK), subject)
    finally:
        os.close(inspected)


def _is_mapped(status: os.stat_result, mapping: MappedArea) -> bool:
    """Is this the file that the process has mapped?

    File systems with layers or sub-volumes (overlayfs, btrfs) have devices of their own in `st_dev`; the kernel gives
    these no hardware's number (major 0). Then the inode alone has to do.
    """
    if status.st_ino != mapping.inode:
        return False
    return status.st_dev == mapping.device or os.major(status.st_dev) == 0


def _walk(root: Path, path: str, pid: Process) -> int:
    """Follow a path below `root` as chroot would; returns a descriptor of what is there, good for inspection only.

    Step by step, from descriptor to descriptor: nothing that is renamed or replaced meanwhile leads out of `root`.
    Links are read, never followed by the kernel, so that those of a /proc in there mean what they say and no more. It
    does what openat2() with RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS would, also where there is none (before Linux 5.6,
    under Docker's older system-call filters).

    Raises:
        OSError: The path leads nowhere, or in circles, or into what another user serves.
    """
    _check_path(path)
    pending = path.split("/")[::-1]
    folders = [os.open(root, _INSPECT | os.O_DIRECTORY)]
    links = 0
    try:
        mount = mounts.of_own(folders[0])
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(folders) > 1:
                    os.close(folders.pop())
                continue
            if len(folders) > _MOST_FOLDERS:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            folders.append(os.open(name, _INSPECT | os.O_NOFOLLOW, dir_fd=folders[-1]))
            if (entered := mounts.of_own(folders[-1])) != mount:
                mounts.check(entered, pid)
            if stat.S_ISLNK(os.fstat(folders[-1]).st_mode):
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                link = folders.pop()
                try:
                    target = os.readlink("", dir_fd=link)
                finally:
                    os.close(link)
                if target.startswith("/"):
                    while len(folders) > 1:
                        os.close(folders.pop())
                pending += target.split("/")[::-1]
        return folders.pop()
    finally:
        for folder in folders:
            os.close(folder)


def _check_path(path: str) -> None:
    """Refuse what no file can be called; Python would raise a ValueError for some of it."""
    try:
        if "\0" in path or len(os.fsencode(path)) > _LONGEST_PATH:
            raise OSError(errno.EINVAL, "no path")
    except UnicodeEncodeError:
        raise OSError(errno.EINVAL, "no path") from None
