"""The registry of a recording's Python processes: who is watched, whose children are, who forks, ends, or becomes
another program.

The kernel has the same list (`python_targets` in python.h) and follows forks by itself, from a child's first moment on;
it tells of them in its ring buffer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pprofpy.collectors.cpython.lock import require_lock
from pprofpy.collectors.cpython.modules import ModuleNames
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime, find_runtime
from pprofpy.collectors.cpython.threadslot import thread_record, thread_slot
from pprofpy.collectors.cpython.versions import Layout
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.pystacks.comparison import Comparison
from pprofpy.errors import NotStartedError, PprofpyError, TargetError
from pprofpy.target import Target, descendants_of, open_target, procfs
from pprofpy.target.process import NotPythonError
from pprofpy.text import counted

_NOT_IN_KERNEL = ("interp_modules", "runtime_gil", "gil_enabled")
_LAYOUT_FIELDS = tuple(one.name for one in fields(Layout) if one.name not in _NOT_IN_KERNEL)
TARGET = np.dtype(
    [
        ("runtime", "u8"),
        ("code_type", "u8"),
        ("gil", "u8"),
        ("flags", "u4"),
        ("thread_record", "u2"),
        ("thread_slot", "i2"),
        *((name, "u2") for name in _LAYOUT_FIELDS),
    ],
    align=True,
)
"""`struct python_target`: where things lie in one process."""

_FOLLOW = 1
_MAX_THREADS = 448
"""PYTHON_MAX_THREADS in python.h: so many states are gone through where glibc does not tell a thread its own."""

_U4 = np.dtype("u4")

_PATIENCE_NS = 5_000_000_000
"""How long a process that has only just begun, or has become another program, may take until its Python can be read."""

_READING_S = 0.5
"""So much CPU time is spent on reading a process's memory at most, in one poll."""

_MOST_REFUSALS = 3
_LOOK_FOR_ENDED_NS = 1_000_000_000


@dataclass(slots=True)
class Process:
    """A process whose stacks are walked.

    Attributes:
        runtime: Its interpreter.
        number: Rises from process to process, and when one has become another program.
        reader: Reads what the kernel could not send; a new one for each poll, so that none takes long.
        modules: Names the modules of its files.
        root: A file descriptor of its root folder, which outlives it.
        comparison: Are the kernel's stacks those that are read from outside?
    """

    runtime: Runtime
    number: int
    reader: ObjectReader
    modules: ModuleNames
    root: int
    comparison: Comparison = field(default_factory=Comparison)


@dataclass(slots=True)
class _Trials:
    """When to try to read a process's Python. Most of those that are tried for long are none: the pauses grow."""

    began_ns: int
    patience_ns: int
    due_ns: int

    @classmethod
    def from_now(cls, patience_ns: int) -> _Trials:
        now_ns = time.monotonic_ns()
        return cls(now_ns, patience_ns, now_ns)

    def is_worth_another(self) -> bool:
        """After one that failed: is there to be another? Sets when."""
        age_ns = time.monotonic_ns() - self.began_ns
        self.due_ns = self.began_ns + age_ns + age_ns // 4
        return age_ns < self.patience_ns


class Processes:
    """The processes that one loaded program watches.

    Args:
        program: Includes python.h.
        children: Also watch the processes that a watched one starts.
        on_entry: Called with each Python, before the kernel walks its stacks.
        needs_lock: Only processes whose interpreter lock can be watched.

    Attributes:
        hidden_threads: How many threads were beyond those whose stacks can be found, as their processes were entered.

    Raises:
        NotPossibleError: The kernel is too old.
    """

    def __init__(
        self, program: Program, *, children: bool, on_entry: Callable[[Process], None], needs_lock: bool = False
    ) -> None:
        self._targets = program.table("python_targets", _U4, TARGET)
        self._children, self._needs_lock = children, needs_lock
        self._on_entry = on_entry
        self._known: dict[int, Process] = {}
        self._starting: dict[int, _Trials] = {}
        self._ended: set[int] = set()
        self._entered: set[int] = set()
        self._refusals: dict[int, str] = {}
        self._looked_ns = 0
        self._number = 0
        self._remarks, self.hidden_threads = program.remarks, 0
        program.attach_raw("sched_process_exit", "python_on_exit")
        program.attach_raw("sched_process_exec", "python_on_exec")
        program.attach_raw("sched_process_fork", "python_on_fork")

    # -- who is in it ----------------------------------------------------------------------------------------------

    def watch(self, target: Target) -> None:
        """Watch a process from now on, and what it has started if children are wanted: a launcher need not be Python.

        Raises:
            NotPossibleError: Its interpreter is none that can be read safely.
            TargetError: It has ended.
            TargetPermissionError: We may not look inside it.
        """
        try:
            if target.is_python:
                self._enter(target)
        except NotStartedError:
            if not self._children:
                raise
        if target.pid not in self._known:
            self._follow(target.pid)
        for child in descendants_of(target.pid) if self._children else ():
            if child not in self._known:  # not all of them need be Python
                self.watch_soon(child, is_patient=True)

    def watch_soon(self, pid: int, *, is_patient: bool) -> PprofpyError | None:
        """Watch a process, but not its children, if its Python can be read.

        Args:
            pid: The process.
            is_patient: It may only just be starting: `poll` tries again for a while.

        Returns:
            Why not, if nothing more is tried.
        """
        if self._children:
            self._follow(pid)
        return self._try(pid, _Trials.from_now(_PATIENCE_NS if is_patient else 0))

    def enter(self, pid: int) -> None:
        """Watch a process that is in the group, be it Python or not. The kernel may know it as a child of another."""
        self._entered.add(pid)
        if pid not in self._known:
            self._targets.put_new(pid, _launcher())
            self._try(pid, _Trials.from_now(_PATIENCE_NS))

    def leave(self, pid: int) -> None:
        """Watch a process no more: it has left the group, or ended."""
        self._targets.delete(np.array([pid], _U4))
        self._starting.pop(pid, None)
        self._entered.discard(pid)
        if procfs.exists(pid):  # else its last stacks may still have to be read
            self._forget([pid])

    def refuse(self, pid: int, error: PprofpyError) -> None:
        """Note why a process of the group is not in the recording."""
        self._refusals[pid] = error.message

    def take_fork(self, child: int, parent: int) -> None:
        """Enter a child, which the kernel watches already; one of a launcher may become Python."""
        if process := self._known.get(parent):
            with suppress(OSError):
                self._add(replace(process.runtime, pid=child))
        else:
            self.take_exec(child)

    def take_exec(self, pid: int) -> None:
        """Try again for a while to read a process's Python: it has become another program."""
        self._starting[pid] = _Trials.from_now(_PATIENCE_NS)

    def poll(self) -> dict[int, PprofpyError]:
        """Try again what is only just starting, and forget processes that have ended.

        Returns:
            pid -> why not, of those that are not tried again.
        """
        due = [(pid, trials) for pid, trials in self._starting.items() if trials.due_ns <= time.monotonic_ns()]
        tried = [(pid, self._try(pid, trials)) for pid, trials in due]
        for pid, error in tried:
            if pid in self._entered and error and not isinstance(error, NotPythonError | NotStartedError):
                self.refuse(pid, error)
        if time.monotonic_ns() - self._looked_ns >= _LOOK_FOR_ENDED_NS:
            self._forget_ended()
        for process in self._known.values():
            process.reader = process.runtime.reader(_READING_S)
        return {pid: error for pid, error in tried if error}

    def close(self) -> None:
        """Let go of the processes' folders."""
        self._forget(list(self._known))

    def followed(self) -> set[int]:
        """Return the processes that the kernel watches, by itself or since they were named."""
        return set(self._targets.items()[0].tolist())

    # -- who asks --------------------------------------------------------------------------------------------------

    def get(self, pid: int) -> Process | None:
        """Return a process; None if it is not watched, or has ended a while ago."""
        return self._known.get(pid)

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of processes of the group that are not in it."""
        shown = [f"Process {pid} is not in it: {why}." for pid, why in list(self._refusals.items())[:_MOST_REFUSALS]]
        if more := len(self._refusals) - len(shown):
            shown.append(f"Neither are {more:,} more.")
        return tuple(shown)

    @property
    def runtimes(self) -> dict[int, Runtime]:
        """pid -> interpreter, of all processes that are walked, or were until a moment ago."""
        return {pid: process.runtime for pid, process in self._known.items()}

    def __iter__(self) -> Iterator[Process]:
        """Those that are watched, or have ended a moment ago."""
        return iter(tuple(self._known.values()))

    def since(self, number: int) -> list[Process]:
        """Return the processes with a higher number, in the order in which they came."""
        return sorted((one for one in self._known.values() if one.number > number), key=lambda one: one.number)

    # ----------------------------------------------------------------------------------------------------------------

    def _try(self, pid: int, trials: _Trials) -> PprofpyError | None:
        self._starting.pop(pid, None)
        try:
            self._enter(open_target(pid))
        except (PprofpyError, OSError) as error:
            if trials.is_worth_another() and procfs.exists(pid):
                self._starting[pid] = trials
                return None
            self._forget([pid])  # it is no Python any more
            return (
                error if isinstance(error, PprofpyError) else TargetError(f"process {pid} cannot be watched: {error}")
            )
        return None

    def _follow(self, pid: int) -> None:
        """Have the kernel watch what a process starts; its own stacks are not walked, or not yet."""
        self._targets.put(pid, _launcher())
        if not procfs.exists(pid):  # as in _enter
            self._targets.delete(np.array([pid], _U4))

    def _enter(self, target: Target) -> None:
        runtime = find_runtime(target)
        if self._needs_lock:
            require_lock(runtime)
        try:
            self._add(runtime)
        except OSError as error:
            raise TargetError(f"process {target.pid} has ended") from error
        entry = np.zeros((), TARGET)
        entry["runtime"], entry["code_type"], entry["gil"] = runtime.address, runtime.code_type, runtime.gil
        entry["flags"] = _FOLLOW if self._children else 0
        entry["thread_record"] = thread_record(runtime)
        entry["thread_slot"] = slot = thread_slot(runtime)
        if not slot:
            self._tell_of_limit(target)
        for name in _LAYOUT_FIELDS:
            entry[name] = getattr(runtime.layout, name)
        self._on_entry(self._known[target.pid])
        self._targets.put(target.pid, entry)
        if not target.is_alive():  # the kernel will not tell us: its number may be another's soon
            self._targets.delete(np.array([target.pid], _U4))
            raise TargetError(f"process {target.pid} has ended")

    def _tell_of_limit(self, target: Target) -> None:
        """Say at once what cannot be seen of a process with more threads than the kernel's walk goes through."""
        with suppress(OSError):
            beyond = procfs.status(target.pid).thread_count - _MAX_THREADS
            if beyond > 0:
                self.hidden_threads += beyond
                self._remarks.append(
                    f"{target} has {counted(beyond, 'thread')} more than the {_MAX_THREADS} whose stacks can be found "
                    "without glibc: those count as running no Python"
                )

    def _add(self, runtime: Runtime) -> None:
        root = os.open(procfs.folder_of(runtime.pid) / "root", os.O_PATH | os.O_CLOEXEC)
        self._forget([runtime.pid])
        self._number += 1
        modules = ModuleNames(Path(f"/proc/self/fd/{root}"), runtime.pid)
        self._known[runtime.pid] = Process(runtime, self._number, runtime.reader(_READING_S), modules, root)

    def _forget_ended(self) -> None:
        """Forget who had ended at the last call already: ring buffers may hold stacks of those that end just now."""
        self._looked_ns = time.monotonic_ns()
        gone = {pid for pid in self._known if not procfs.exists(pid)}
        self._forget(gone & self._ended)
        self._ended = gone - self._ended

    def _forget(self, pids: Iterable[int]) -> None:
        for pid in pids:
            if process := self._known.pop(pid, None):
                os.close(process.root)


def _launcher() -> np.ndarray[Any, Any]:
    """The kernel's entry of a process whose children are to be watched."""
    entry = np.zeros((), TARGET)
    entry["flags"] = _FOLLOW
    return entry
