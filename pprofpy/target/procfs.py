r"""The only reader of what /proc says of processes.

A process chooses much of what stands there: its threads' names, its command line, the names of its files. So everything
is read as bytes, lines end at `\n` and nowhere else, of two lines with one key the first counts (the kernel's comes
first), and what is returned are numbers and names, never lines. Names of threads and words of command lines come as
text that any file can hold, names of files as the file system's functions want them; neither is fit for a terminal yet.

All functions raise OSError: there is no such process (any more), we may not look, the kernel's answer is not what we
know (MalformedError), or there is none in time (BlockedError). Where it says so, an ended process has no entries
instead.

Source: man 5 proc; fs/proc/array.c and task_mmu.c in the kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from pprofpy.system.blocking import bounded
from pprofpy.target.status import MalformedError, Status
from pprofpy.text import text_of

PROC = Path("/proc")

Process = int | Literal["self"]
"""A pid, or whoever asks."""

_HOST_PID_NAMESPACE, _HOST_USER_NAMESPACE = "pid:[4026531836]", "user:[4026531837]"
_MOST_BYTES = 1 << 20
_MOST_BYTES_OF_MAPS = 16 << 20
"""A quarter of a million mappings with names of usual length. The kernel writes 16 MB a second."""
_MOST_BYTES_OF_COMMAND = 16 << 10
"""Users' patterns are searched for in it, and some need time that grows with its square."""
_OF_MEMORY = {"cmdline", "maps", "smaps_rollup"}
"""For these the kernel reads a process's memory, or waits until nothing else changes it."""
_CHUNK_BYTES = 1 << 16
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_FUNCTION_NAME = re.compile(rb"^\[<\w+>\] ([\w.]+)\+", re.MULTILINE)
_SHIFTED = re.compile(rb"^(?:monotonic|1) +(?:[^0 ]|0 +[^0 ])", re.MULTILINE)
_MOUNT_NUMBER = re.compile(rb"\nmnt_id:\t(\d{1,10})\n")
_MAPPING = re.compile(
    rb"([0-9a-f]{1,16})-([0-9a-f]{1,16}) ([r-][w-][x-][ps]) ([0-9a-f]{1,16}) ([0-9a-f]{1,3}):([0-9a-f]{1,5}) (\d{1,20})"
    rb"(?: +([^\n]*))?\n"
)


class Stat(NamedTuple):
    """What /proc/PID/stat says.

    Attributes:
        state: R, S, D, T, ...
        cpu_ns: CPU time that all threads, ended ones too, have used (of a thread: that it has used).
        started_ticks: When it started, in clock ticks since boot.
    """

    state: str
    cpu_ns: int
    started_ticks: int

    @property
    def has_ended(self) -> bool:
        """Is it only waiting for its parent to collect it?"""
        return self.state in "ZX"


class MappedArea(NamedTuple):
    """What is mapped into a process at one place: a line of /proc/PID/maps.

    Attributes:
        start, end: Addresses.
        permissions: As in `r-xp`.
        offset: Where in the file it begins.
        device: The device of the file, as in `st_dev`; 0 without a file. File systems with sub-volumes and layers say
            another in `st_dev`.
        inode: The file's; 0 without a file.
        name: As the kernel writes it: a line's end becomes `\\012`, and a file without a name gets ` (deleted)`, but a
            file may be called so, too.
    """

    start: int
    end: int
    permissions: str
    offset: int
    device: int
    inode: int
    name: str

    @property
    def path(self) -> str:
        """The path that the file has or had, as its process sees it; empty without one."""
        return self.name.removesuffix(" (deleted)").replace("\\012", "\n") if self.name.startswith("/") else ""

    @property
    def is_code(self) -> bool:
        """Can it be executed?"""
        return self.permissions[2] == "x"


class SystemCall(NamedTuple):
    """The system call that a thread is blocked in.

    Attributes:
        number: -1 if it is blocked elsewhere, as in a page fault.
        arguments: Six; zeros if it is in none.
        stack_pointer: Of the thread.
    """

    number: int
    arguments: tuple[int, ...]
    stack_pointer: int


# -- processes and threads -----------------------------------------------------------------------------------------


def folder_of(pid: Process, tid: int = 0) -> Path:
    """Where the kernel tells of a process, or of one of its threads."""
    return PROC / str(pid) / "task" / str(tid) if tid else PROC / str(pid)


def pids() -> list[int]:
    """All processes that we see, ascending."""
    return _numbers(PROC)


def tids(pid: Process) -> list[int]:
    """The threads of a process, ascending; none if it has ended."""
    try:
        return _numbers(PROC / str(pid) / "task")
    except OSError:
        return []


def exists(pid: int) -> bool:
    """Is there such a process (or thread)?"""
    return folder_of(pid).exists()


def status(pid: Process, tid: int = 0) -> Status:
    """What kind of process (or thread) it is."""
    return Status(_content(pid, tid, "status"))


def stat(pid: Process, tid: int = 0) -> Stat:
    """How it is doing. The name that stands there, too, may hold anything, also `) R 1`."""
    fields = _content(pid, tid, "stat").rpartition(b")")[2].split()
    try:
        ticks = int(fields[11]) + int(fields[12])
        return Stat(fields[0].decode("ascii"), ticks * 1_000_000_000 // _TICKS_PER_SECOND, int(fields[19]))
    except (ValueError, IndexError):
        raise MalformedError("/proc/PID/stat is not as we know it") from None


def comm(pid: Process, tid: int = 0) -> bytes:
    """The kernel's name of a thread: at most 15 bytes, of any kind."""
    return _content(pid, tid, "comm").removesuffix(b"\n")


def thread_name(pid: Process, tid: int = 0) -> str:
    """The kernel's name of a thread as text."""
    return text_of(comm(pid, tid))


def command_line(pid: Process) -> tuple[str, ...]:
    """The words that it was started with, or says so; what is beyond 16 KB is left out."""
    words = _content(pid, 0, "cmdline", _MOST_BYTES_OF_COMMAND, is_cut=True).split(b"\0")
    return tuple(map(text_of, words[:-1] if words[-1] == b"" else words))


def namespace(pid: Process, kind: str) -> str:
    """Tells one namespace (`pid`, `mnt`, `user`) from another."""
    return os.readlink(f"{PROC}/{pid}/ns/{kind}")  # noqa: PTH115 - fast


def own_number() -> int:
    """The pid that /proc has for us: that of its own pid namespace, which need not be ours; 0 if it has none."""
    try:
        return int(os.readlink(f"{PROC}/self"))  # noqa: PTH115 - a number
    except (OSError, ValueError):
        return 0


def is_host_pid_namespace() -> bool:
    """Are our numbers of processes those of the kernel itself? Source: PROC_PID_INIT_INO in <linux/proc_ns.h>."""
    return namespace("self", "pid") == _HOST_PID_NAMESPACE


def is_host_user_namespace() -> bool:
    """Are our privileges those of the machine? Source: PROC_USER_INIT_INO in <linux/proc_ns.h>."""
    try:
        return namespace("self", "user") == _HOST_USER_NAMESPACE
    except OSError:  # a kernel without user namespaces
        return True


def program(pid: Process) -> str:
    """The path of its program, as it sees it."""
    return os.readlink(f"{PROC}/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115 - fast


def root(pid: Process) -> str:
    """The path of its root folder, as we see it; `/` unless it is confined to another."""
    return os.readlink(f"{PROC}/{pid}/root")  # noqa: PTH115 - as above


def control_groups(pid: Process) -> list[tuple[str, str]]:
    """(controllers, path) of each hierarchy; version 2 has no controllers."""
    lines = (line.split(b":", 2) for line in _content(pid, 0, "cgroup").split(b"\n"))
    return [(os.fsdecode(parts[1]), os.fsdecode(parts[2])) for parts in lines if len(parts) == 3]


# -- what it does --------------------------------------------------------------------------------------------------


def system_call(pid: Process, tid: int = 0) -> SystemCall | None:
    """The system call that a thread is blocked in; None if it runs."""
    words = _content(pid, tid, "syscall").split()
    if words[:1] == [b"running"]:
        return None
    try:
        numbers = [int(word, 16) for word in words[1:]]
        if len(numbers) not in (2, 8):
            raise ValueError
        return SystemCall(int(words[0]), tuple(numbers[:-2]) or (0,) * 6, numbers[-2])
    except (ValueError, IndexError):
        raise MalformedError("/proc/PID/syscall is not as we know it") from None


def kernel_stack(pid: Process, tid: int = 0) -> tuple[str, ...]:
    """The names of the kernel's functions that a thread is in, leaf-first."""
    return tuple(name.decode() for name in _FUNCTION_NAME.findall(_content(pid, tid, "stack")))


def wait_channel(pid: Process, tid: int = 0) -> str:
    """The kernel's function that a thread waits in; empty if it does not wait, or that is not told."""
    name = _content(pid, tid, "wchan").strip(b"\0\n ")
    return name.decode("ascii", "replace") if re.fullmatch(rb"[A-Za-z_][\w.]*", name) else ""


def mount_number(pid: Process, descriptor: int, tid: int = 0) -> int:
    """The number of the mount that a descriptor's file is on; its file system is not asked."""
    return parse_mount_number(_content(pid, tid, f"fdinfo/{descriptor}"))


def is_monotonic_clock_shifted() -> bool:
    """Does our monotonic clock show another time than the kernel's own? Source: man 7 time_namespaces."""
    try:
        return bool(_SHIFTED.search(_content("self", 0, "timens_offsets")))
    except OSError:  # a kernel without time namespaces
        return False


def parse_mount_number(content: bytes) -> int:
    """`mnt_id` in /proc/PID/fdinfo/N."""
    found = _MOUNT_NUMBER.search(b"\n" + content)
    if not found:
        raise MalformedError("/proc/PID/fdinfo is not as we know it")
    return int(found[1])


def mounts(pid: Process) -> bytes:
    """/proc/PID/mountinfo."""
    return _content(pid, 0, "mountinfo", _MOST_BYTES_OF_MAPS)


def run_queue_ns(pid: Process, tid: int = 0) -> int:
    """How long a thread has waited for a CPU."""
    try:
        return int(_content(pid, tid, "schedstat").split()[1])
    except (ValueError, IndexError):
        raise MalformedError("/proc/PID/schedstat is not as we know it") from None


# -- its memory ----------------------------------------------------------------------------------------------------


def mappings(pid: Process) -> list[MappedArea]:
    """What is mapped into a process, by rising address."""
    return list(parse_mappings(_content(pid, 0, "maps", _MOST_BYTES_OF_MAPS)))


def parse_mappings(content: bytes) -> Iterator[MappedArea]:
    """The lines of /proc/PID/maps."""
    end = 0
    while match := _MAPPING.match(content, end):
        end = match.end()
        start, stop, permissions, offset, major, minor, inode, name = match.groups()
        yield MappedArea(
            int(start, 16),
            int(stop, 16),
            permissions.decode(),
            int(offset, 16),
            os.makedev(int(major, 16), int(minor, 16)),
            int(inode),
            os.fsdecode(name or b""),
        )
    if end != len(content):
        raise MalformedError("/proc/PID/maps is not as we know it")


def memory_sums(pid: Process) -> dict[str, int]:
    """How much of a process's memory is of which kind, as `Rss` and `Private_Dirty`, in bytes."""
    pairs = (line.split() for line in _content(pid, 0, "smaps_rollup").split(b"\n")[1:])
    try:
        return {
            words[0].rstrip(b":").decode("ascii"): int(words[1]) << 10
            for words in pairs
            if len(words) == 3 and words[2] == b"kB"
        }
    except ValueError:
        raise MalformedError("/proc/PID/smaps_rollup is not as we know it") from None


# -- reading -------------------------------------------------------------------------------------------------------


def _numbers(folder: Path) -> list[int]:
    return sorted(int(name) for name in os.listdir(folder) if name.isdecimal() and name.isascii())  # noqa: PTH208 - names only, and fast


def _content(pid: Process, tid: int, name: str, most: int = _MOST_BYTES, *, is_cut: bool = False) -> bytes:
    """A file's bytes. One with more than there can be is refused, or cut."""
    path = f"{PROC}/{pid}/task/{tid}/{name}" if tid else f"{PROC}/{pid}/{name}"
    if name in _OF_MEMORY and pid != "self":
        return bounded(f"process {pid}", lambda: _read(path, most, is_cut=is_cut))
    return _read(path, most, is_cut=is_cut)


def _read(path: str, most: int, *, is_cut: bool) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        parts, size = [], 0
        while size <= most and (part := os.read(descriptor, _CHUNK_BYTES)):
            parts.append(part)
            size += len(part)
    finally:
        os.close(descriptor)
    if size > most and not is_cut:
        raise MalformedError(f"{path} has more than {most >> 20} MB")
    return b"".join(parts)[:most]
