"""The control file: made by the agent in the target's memory, without a name; opened here to read, and locked.

Only the target writes to it: what it hands to us as its control file may be anything, a file of another user's too. For
the same reason it is inspected through a descriptor that can do nothing else before it is opened, and opening neither
blocks nor waits for anybody. The kernel drops our lock when we end, however that comes about: so the agent notices.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct
import time
from collections.abc import Iterator
from typing import Any

from pprofpy.collectors.heapagent import plain
from pprofpy.errors import TargetError
from pprofpy.system import folders
from pprofpy.system.blocking import bounded
from pprofpy.target import Target, procfs

PROGRESS_BYTES, LENGTH_BYTES = 16, 8
MOST_BYTES = 1 << 30

_LOCK = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0)
_LOCKING_S, _PAUSE_S = 2.0, 0.005
"""The agent tries the lock itself, for a moment, to see whether somebody holds it."""

_FILE_SYSTEMS = {0x01021994, 0x858458F6, 0xEF53, 0x58465342, 0x9123683E, 0x794C7630}
"""tmpfs (which holds files in memory, too), ramfs, ext, xfs, btrfs, overlayfs: none that a user can make answer late.

Source: linux/magic.h.
"""

_libc = ctypes.CDLL(None, use_errno=True)


class ControlFile:
    """The control file of a target's agent, open to be read.

    Args:
        target: The process.
        descriptor: Which of the target's descriptors it is, as the agent says.
        inode: Its inode, as the agent says: by now the descriptor may be another's.

    Raises:
        TargetError: It cannot be opened, or the target has ended.
        ImplausibleTargetError: It is not what the agent makes.
    """

    def __init__(self, target: Target, descriptor: int, inode: int) -> None:
        plain.count(descriptor, plain.MOST_LINES)
        try:
            self._file = bounded(f"a file of process {target.pid}", lambda: _open(target, descriptor, inode))
        except OSError as error:
            raise TargetError(
                f"the control file of process {target.pid} cannot be opened: {error.strerror}", "try again"
            ) from error
        try:
            self._lock()
        except OSError as error:
            self.close()
            raise TargetError(
                f"the control file of process {target.pid} cannot be locked: {error.strerror}", "try again"
            ) from error

    def _lock(self) -> None:
        deadline = time.monotonic() + _LOCKING_S
        while True:
            try:
                fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, _LOCK)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES) or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
            else:
                return

    def is_empty(self) -> bool:
        """Has the agent nothing to say?"""
        return os.fstat(self._file).st_size == 0

    def progress(self) -> tuple[int, int]:
        """How much of its task the agent has done, and how much there is; zeros as long as it does not know."""
        content = self._read(0, PROGRESS_BYTES).ljust(PROGRESS_BYTES, b"\0")
        done, count = struct.unpack("<QQ", content)
        return (done, count) if done <= count <= plain.MOST_COUNT else (0, 0)

    def pieces(self) -> Iterator[Any]:
        """What the agent has put there, piece by piece, as plain data.

        Raises:
            ImplausibleTargetError: It is not what an agent says, or more than any has to say.
        """
        size = os.fstat(self._file).st_size
        if size > MOST_BYTES:
            raise plain.implausible(f"{size} bytes")
        at = PROGRESS_BYTES
        while at < size:
            length = int.from_bytes(self._read(at, LENGTH_BYTES), "little")
            if length > plain.MOST_BYTES:
                raise plain.implausible(f"{length} bytes in one piece")
            at += LENGTH_BYTES
            yield plain.decode(self._read(at, length))
            at += length

    def _read(self, at: int, size: int) -> bytes:
        parts = []
        while size and (part := os.pread(self._file, size, at)):
            parts.append(part)
            at += len(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Let go; the agent notices within a fraction of a second."""
        os.close(self._file)


def _open(target: Target, descriptor: int, inode: int) -> int:
    """Inspect what the target's descriptor leads to, and only then open it."""
    folder = procfs.folder_of(target.pid) / "fd"
    inspected = os.open(folder / str(descriptor), os.O_PATH | os.O_CLOEXEC)
    try:
        _check(inspected, target, inode)
        return folders.reopen(inspected, os.O_RDONLY | os.O_NONBLOCK)
    finally:
        os.close(inspected)


def _check(inspected: int, target: Target, inode: int) -> None:
    """Refuse all but a regular file without a name, of the target's user, in memory or on a disk."""
    about = os.fstat(inspected)
    if about.st_ino != inode:
        raise OSError(errno.EBADF, "another has taken its place")
    is_plain_file = stat.S_ISREG(about.st_mode) and about.st_nlink == 0 and _file_system(inspected) in _FILE_SYSTEMS
    if not is_plain_file or about.st_uid != procfs.status(target.pid).user:
        raise plain.implausible("a control file that is another kind of file, or somebody else's")


def _file_system(descriptor: int) -> int:
    """The magic number of a file's file system: the first word of struct statfs."""
    about = (ctypes.c_ulong * 64)()
    if _libc.fstatfs(descriptor, about):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(about[0])
