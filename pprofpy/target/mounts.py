"""File systems that a program of another user serves (FUSE), found out without asking them anything.

Such a program may take a request and never answer it; the kernel then lets nobody go who waits for the answer, not even
for SIGKILL. So nothing is asked of those that neither root nor we ourselves serve.

Source: man 5 proc_pid_mountinfo, proc_pid_fdinfo; fs/fuse/dev.c (request_wait_answer) in the kernel.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pprofpy.system.blocking import bounded
from pprofpy.target import procfs
from pprofpy.target.procfs import Process

_PLACE = re.compile(rb"(\d{1,10}) \d{1,10} (\d{1,8}):(\d{1,8}) ")
_SERVER = re.compile(rb"(?:^|,)user_id=(\d{1,10})(?:,|$)")
_FUSE = re.compile(rb"fuse(?:blk)?(?:\.|$)")


class ServedError(PermissionError):
    """A file lies where another user's program answers for it."""

    def __init__(self, user: int) -> None:
        super().__init__(errno.EACCES, f"it is on a file system that user {user} serves (FUSE)")


class Mount(NamedTuple):
    """A file system that somebody serves, mounted at one place.

    Attributes:
        number: The mount's.
        device: As in `st_dev`.
        user: Who serves it.
    """

    number: int
    device: int
    user: int


def parse_served(content: bytes) -> Iterator[Mount]:
    """The FUSE file systems in /proc/PID/mountinfo: lines of NUMBER PARENT MAJOR:MINOR ... - TYPE SOURCE OPTIONS."""
    for line in content.split(b"\n"):
        about, _, of_type = line.partition(b" - ")
        place, kind = _PLACE.match(about), of_type.split(b" ")
        server = _SERVER.search(kind[-1])
        if place and server and _FUSE.match(kind[0]):
            number, major, minor = map(int, place.groups())
            yield Mount(number, os.makedev(major, minor), int(server[1]))


def served_by_others(pid: Process) -> list[Mount]:
    """Those that a process sees, and that neither root nor we serve; none if it has ended."""
    try:
        content = procfs.mounts(pid)
    except OSError:
        return []
    return [mount for mount in parse_served(content) if mount.user not in (0, os.geteuid())]


def check(number: int, pid: Process) -> None:
    """Refuse a mount.

    Args:
        number: The mount's.
        pid: A process that sees it.

    Raises:
        ServedError: Another user serves it.
    """
    for mount in served_by_others(pid):
        if mount.number == number:
            raise ServedError(mount.user)


def of_own(descriptor: int) -> int:
    """The number of the mount that one of our own descriptors is on."""
    return procfs.parse_mount_number(Path(f"/proc/self/fdinfo/{descriptor}").read_bytes())


def descriptor(pid: Process, number: int, tid: int = 0) -> tuple[bytes, os.stat_result]:
    """What a descriptor of a process stands for: the path it was opened by (or `anon_inode:...`), and its status.

    Raises:
        ServedError: Its file system must not be asked.
        OSError: It is closed, or we may not look.
    """
    check(procfs.mount_number(pid, number, tid), pid)
    link = procfs.folder_of(pid, tid) / "fd" / str(number)
    path = os.readlink(os.fsencode(link))  # noqa: PTH115 - bytes: a path need not be text
    return path, bounded(f"a file of process {pid}", link.stat)
