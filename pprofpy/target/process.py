"""A Python process: pid, name, command, owner, Python, namespaces, threads.

Everything is read from /proc, through the target's own root where its files are meant, so that containers work. Nothing
here touches the target.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from pprofpy.errors import ImplausibleTargetError, NotPossibleError, TargetError
from pprofpy.system.blocking import BlockedError, bounded
from pprofpy.target import procfs
from pprofpy.target.interpreter import LOADER_NAME, NO_PYTHON, PROGRAM_NAME, Interpreter, find_interpreter
from pprofpy.target.mounts import served_by_others
from pprofpy.target.permission import permission_error, user_name
from pprofpy.target.status import MalformedError
from pprofpy.text import printable
from pprofpy.units import NS_PER_S


class NotPythonError(TargetError):
    """There is no interpreter in a process."""


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread as the kernel sees it.

    Attributes:
        tid: In our pid namespace.
        inner_tid: In the target's own; the same unless it runs in a container.
        name: The kernel's name for it, at most 15 bytes; Python's `Thread.name` is another thing.
    """

    tid: int
    inner_tid: int
    name: str


@dataclass(frozen=True, slots=True)
class Target:
    """A Python process.

    Attributes:
        pid: In our pid namespace.
        name: What its users would call it: the script, module or program.
        command: Its command line.
        user: Who runs it.
        interpreter: The Python in it; NO_PYTHON of a launcher, whose children are what is meant.
        in_other_pid_namespace, in_other_mount_namespace: It sees other pids, other files than we do (a container).
        started_ticks: When it started, in clock ticks since boot: with the pid, its identity.
    """

    pid: int
    name: str
    command: tuple[str, ...]
    user: str
    interpreter: Interpreter
    in_other_pid_namespace: bool
    in_other_mount_namespace: bool
    started_ticks: int

    def __str__(self) -> str:
        python = f"{self.interpreter.implementation} {self.interpreter.version}"
        return f"{self.name} (pid {self.pid}, {python if self.is_python else 'no Python itself'})"

    @property
    def members(self) -> tuple[Target, ...]:
        """It alone: as of a Group."""
        return (self,)

    @property
    def is_python(self) -> bool:
        """Is it one, as opposed to a launcher?"""
        return self.interpreter != NO_PYTHON

    @property
    def root(self) -> Path:
        """The target's root folder, reachable from here."""
        return procfs.folder_of(self.pid) / "root"

    def threads(self) -> list[Thread]:
        """Its threads right now; empty if it has ended."""
        found = []
        for tid in procfs.tids(self.pid):
            with contextlib.suppress(OSError):
                inner = procfs.status(self.pid, tid).inner_id
                found.append(Thread(tid, inner, procfs.thread_name(self.pid, tid)))
        return found

    def state(self) -> str:
        """Its state as the kernel abbreviates it (R, S, D, T, ...); empty if it has ended or its pid is another's."""
        try:
            stat = procfs.stat(self.pid)
        except OSError:
            return ""
        return "" if stat.has_ended or stat.started_ticks != self.started_ticks else stat.state

    def cpu_time_ns(self) -> int:
        """CPU time that all its threads, ended ones too, have used since it started; -1 if it has ended.

        Source: utime and stime in /proc/PID/stat, in clock ticks (10 ms).
        """
        try:
            stat = procfs.stat(self.pid)
        except OSError:
            return -1
        return -1 if stat.has_ended else stat.cpu_ns

    def age_s(self) -> float:
        """How long ago it started, in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started_ticks / os.sysconf("SC_CLK_TCK")

    def started_ns(self) -> int:
        """When it started, Unix time in nanoseconds, to about 10 ms; wrong by what the clock was set since."""
        return time.time_ns() - round(self.age_s() * NS_PER_S)

    def is_alive(self) -> bool:
        """Does it still run? A zombie does not."""
        return self.state() != ""

    def is_replaced(self) -> bool:
        """Has it ended, and has another process its pid now?"""
        try:
            return procfs.stat(self.pid).started_ticks != self.started_ticks
        except OSError:
            return False


def open_target(pid: int, *, is_launcher: bool = False) -> Target:
    """The Python process `pid`.

    Args:
        pid: The process.
        is_launcher: It need not be Python.

    Raises:
        TargetError: There is none, it has ended, or it is not Python.
        TargetPermissionError: We may not look inside it.
        NotPossibleError: Another user's program answers for some of its memory.
        ImplausibleTargetError: It has more files mapped than any program, or does not let itself be read.
    """
    listing = "list Python processes with 'pgrep -af python'"
    try:
        status, stat = procfs.status(pid), procfs.stat(pid)
    except OSError as error:
        raise TargetError(f"there is no process {pid}", listing) from error
    if (process := status.pid) != pid:
        raise TargetError(f"{pid} is a thread of process {process}", f"profile the process: --pid {process}")
    if stat.has_ended:
        raise TargetError(f"process {pid} has ended (a zombie: its parent has not collected it yet)", listing)
    user = user_name(status.user)
    try:
        _refuse_served(pid)
        command, interpreter = bounded(f"process {pid}", lambda: (procfs.command_line(pid), find_interpreter(pid)))
        foreign = [procfs.namespace(pid, kind) != procfs.namespace("self", kind) for kind in ("pid", "mnt")]
    except PermissionError as error:
        raise permission_error(pid, user) from error
    except BlockedError as error:
        raise error.as_error() from error
    except MalformedError as error:
        raise ImplausibleTargetError(f"process {pid} cannot be inspected: {error}") from error
    except OSError as error:
        raise TargetError(f"process {pid} ended just now", listing) from error
    name = printable((_name(command) if interpreter else "") or status.name)
    if interpreter is None and is_launcher:
        interpreter = NO_PYTHON
    if interpreter is None:
        raise NotPythonError(f"process {pid} ({name}) is not a Python process", listing)
    return Target(pid, name, command, user, interpreter, foreign[0], foreign[1], stat.started_ticks)


def _refuse_served(pid: int) -> None:
    """Refuse a process part of whose memory another user's program answers for, or never does.

    Raises:
        NotPossibleError: It is one.
        OSError: It has ended, or we may not look.
    """
    served = {mount.device: mount.user for mount in served_by_others(pid)}
    for mapping in procfs.mappings(pid) if served else ():
        if mapping.device in served:
            user = user_name(served[mapping.device])
            raise NotPossibleError(
                f"process {pid} has files mapped that a program of user {user} serves (FUSE), which may never answer",
                f"record it as that user: sudo -u {user} ...",
            )


def descendants_of(pid: int) -> list[int]:
    """The pids of a process's children and of theirs, ascending."""
    family = {pid}
    for other in procfs.pids():  # ascending: parents come before their children, unless pids have wrapped around
        with contextlib.suppress(OSError):
            if procfs.status(other).parent in family:
                family.add(other)
    return sorted(family - {pid})


def _name(command: tuple[str, ...]) -> str:
    """What users call a process: the script or module of an interpreter, else the program."""
    if not command:
        return ""
    command = _without_loader(command)
    program = command[0].rpartition("/")[2]
    if PROGRAM_NAME.fullmatch(program):
        words = iter(command[1:])
        for word in words:
            if word in ("-m", "-X", "-W"):
                value = next(words, "")
                if word == "-m":
                    return value
            elif word == "-c":
                break
            elif not word.startswith("-"):
                return word.rpartition("/")[2].removesuffix(".py")
    return program


def _without_loader(command: tuple[str, ...]) -> tuple[str, ...]:
    """What `ld.so --library-path FOLDER PROGRAM ARGS...` starts. Source: man 8 ld.so."""
    place = 1
    if not LOADER_NAME.fullmatch(command[0].rpartition("/")[2]):
        return command
    while command[place:] and command[place].startswith("--"):
        place += 1 if "=" in command[place] or command[place] == "--inhibit-cache" else 2
    return command[place:] or command
