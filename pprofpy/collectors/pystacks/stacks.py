"""Python stacks that the kernel has walked (`python.h`), spelled out.

    program = load("my.bpf.c", python_constants() | {...}, PYTHON_LAYOUTS | {...})
    stacks = PythonStacks(program)
    stacks.watch(target)            # again for each further process; its children, too, if wanted
    stacks.poll()                   # some ten times a second
    stacks.frames(stack_id)         # leaf-first
    number = stacks.number(stack_id)  # to sum up by: the same for all that read the same
    stacks.spelled(number)
    stacks.make_room(in_use)        # after each look at the program's tables

New stacks and code objects come through a ring buffer, names included. Reading the process's memory is only needed for
what the kernel could not send: huge line tables, and code that is new far down in a deep stack.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path

import numpy as np

from pprofpy import __version__
from pprofpy.arch import x86_64
from pprofpy.collectors.cpython.linetable import LineTables
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.modules import ModuleNames
from pprofpy.collectors.cpython.objects import Code, Reader, decode_text
from pprofpy.collectors.cpython.runtime import Runtime, find_runtime
from pprofpy.collectors.cpython.threadslot import thread_slot
from pprofpy.collectors.cpython.versions import KERNEL_DEFINES, Layout
from pprofpy.collectors.kernel.program import Program, struct_offsets
from pprofpy.collectors.pystacks.comparison import Comparison
from pprofpy.collectors.pystacks.numbered import Numbered
from pprofpy.errors import ImplausibleTargetError, NotPossibleError, PprofpyError, TargetError
from pprofpy.model.profile import Collection, Frame, Function, Stack
from pprofpy.system.blocking import BlockedError, bounded
from pprofpy.target import Target, descendants_of, open_target, procfs

TRUNCATED = Frame(Function("[truncated]"))
"""Stands at the root of a stack that is deeper than what the kernel walks."""

UNREADABLE = Frame(Function("[unreadable]"))
"""Stands at the root of a stack whose rest could not be read."""

_MAX_FRAMES, _NAME_BYTES, _FILE_BYTES, _TABLE_BYTES = 512, 256, 512, 4096
_MAX_THREADS = 512
"""PYTHON_MAX_THREADS in python.h: so many states are gone through where glibc does not tell a thread its own."""

_NOT_IN_KERNEL = ("interp_modules", "runtime_gil")
_LAYOUT_FIELDS = tuple(one.name for one in fields(Layout) if one.name not in _NOT_IN_KERNEL)
_TARGET = np.dtype(
    [
        ("runtime", "u8"),
        ("code_type", "u8"),
        ("gil", "u8"),
        ("flags", "u4"),
        ("thread_slot", "u2"),
        *((name, "u2") for name in _LAYOUT_FIELDS),
    ],
    align=True,
)
_FRAME = np.dtype([("code", "u8"), ("instruction", "i4"), ("fingerprint", "u4")])
_STACK = np.dtype(
    [
        ("kind", "u4"),
        ("tgid", "u4"),
        ("id", "u8"),
        ("thread_state", "u8"),
        ("tid", "u4"),
        ("flags", "u4"),
        ("frame_count", "u4"),
        ("frame_first", "u4"),
        ("frames", _FRAME, (_MAX_FRAMES,)),
    ]
)
_CODE = np.dtype(
    [
        ("kind", "u4"),
        ("tgid", "u4"),
        ("code", "u8"),
        ("table", "u8"),
        ("fingerprint", "u4"),
        ("first_line", "i4"),
        ("name_bytes", "u4"),
        ("name_width", "u4"),
        ("file_bytes", "u4"),
        ("file_width", "u4"),
        ("table_bytes", "u4"),
        ("unused", "u4"),
        ("name_text", "u1", (_NAME_BYTES,)),
        ("file_text", "u1", (_FILE_BYTES,)),
        ("table_data", "u1", (_TABLE_BYTES,)),
    ]
)
_PROCESS_EVENT = np.dtype([("kind", "u4"), ("tgid", "u4"), ("parent_tgid", "u4"), ("unused", "u4")])
PYTHON_LAYOUTS = {
    "python_target": _TARGET,
    "python_frame": _FRAME,
    "python_stack": _STACK,
    "python_code": _CODE,
    "python_process_event": _PROCESS_EVENT,
}
"""For `load(layouts=...)` of a program that includes python.h."""

_STACK_HEAD, _CODE_HEAD = struct.Struct("<IIQQIIII"), struct.Struct("<IIQQIiIIIIII")
_EVENT = struct.Struct("<IIII")
_FRAME_KEY = struct.Struct("<QiI")
_KIND_STACK, _KIND_CODE, _KIND_EXEC, _KIND_FORK = 1, 2, 3, 4
_CUT, _BROKEN = 1, 2
_FOLLOW = 1
_U4, _U8 = np.dtype("u4"), np.dtype("u8")

_CodeKey = tuple[int, int, int]
"""Process, address, fingerprint: what an address held at some time."""

_PATIENCE_S = 5.0
"""How long a process that has become another program may take until its Python can be read."""

_MANY_STACKS = 32_768
"""Half of what the kernel itself remembers (PYTHON_KNOWN): twice as many may be in memory."""

_READING_S = 0.5
"""So much CPU time is spent on reading a process's memory at most, in one poll."""

_MOST_LARGE_BYTES = 16 << 20
"""Of line tables that the kernel does not send, so much is kept at most."""

WITHOUT_PYTHON = ("python_unknown_threads", "python_no_function")
"""Threads that run no Python."""

_TRUNCATED = "python_truncated"
_FAILED = ("python_unreadable", "python_stacks_full", "python_interrupted", "python_threads_beyond")
_MISSED = (
    *WITHOUT_PYTHON,
    "python_unreadable",
    "python_truncated",
    "python_stacks_full",
    "python_names_full",
    "python_interrupted",
    "python_threads_beyond",
)
"""Why a walk gave no stack, or not all of it; the order of the enum in python.h."""


@cache
def python_constants() -> dict[str, int]:
    """What python.h must know of CPython and of the running kernel.

    Raises:
        NotPossibleError: This kernel does not tell.
    """
    members = {"TASK_THREAD_POINTER": x86_64.THREAD_POINTER, "TASK_TGID": "task_struct.tgid"}
    offsets = struct_offsets(members, "threads of Python cannot be told apart in it")
    return {**KERNEL_DEFINES, **x86_64.KERNEL_DEFINES, **offsets}


@dataclass(slots=True)
class _Process:
    """A process whose stacks are walked.

    Attributes:
        runtime: Its interpreter.
        reader: Reads what the kernel could not send; a new one for each poll, so that none takes long.
        modules: Names the modules of its files.
        root: A file descriptor of its root folder, which outlives it.
        comparison: Are the kernel's stacks those that are read from outside?
    """

    runtime: Runtime
    reader: Reader
    modules: ModuleNames
    root: int
    comparison: Comparison = field(default_factory=Comparison)


class PythonStacks:
    """The stacks that one loaded program has met.

    Args:
        program: Includes python.h.
        children: Also walk the processes that a watched one starts.

    Raises:
        NotPossibleError: The kernel is too old.
    """

    def __init__(self, program: Program, *, children: bool = False) -> None:
        self._targets = program.table("python_targets", _U4, _TARGET)
        self._missed = program.table("python_missed", _U4, _U8)
        self._epoch = program.table("python_epoch", _U4, _U4)
        self._records = program.records("python_records")
        self._children = children
        self._remarks, self._beyond = program.remarks, 0
        self._processes: dict[int, _Process] = {}
        self._became: dict[int, float] = {}
        self._codes: dict[_CodeKey, Code] = {}
        self._older_codes: dict[_CodeKey, Code] = {}
        self._frames: dict[tuple[int, bytes], Frame | None] = {}
        self._same: dict[Code, Code] = {}
        self._lines: dict[tuple[int, int], LineTables] = {}
        self._large_bytes = 0
        self._polls = 0
        self._stacks: dict[int, Stack] = {0: ()}
        self._older: dict[int, Stack] = {}
        self._numbered: Numbered[Stack] = Numbered(())
        self._numbers: dict[int, int] = {}
        self.unnamed = 0
        self.unlined = 0
        self._epoch.put(0, 1)
        program.attach_raw("sched_process_exit", "python_on_exit")
        program.attach_raw("sched_process_exec", "python_on_exec")
        program.attach_raw("sched_process_fork", "python_on_fork")

    def watch(self, target: Target) -> None:
        """Have the kernel walk the stacks of a process from now on, and of what it has started if children are wanted.

        Raises:
            NotPossibleError: Its interpreter is none that can be read safely.
            TargetError: It has ended.
            TargetPermissionError: We may not look inside it.
        """
        self.watch_one(target)
        for child in descendants_of(target.pid) if self._children else ():
            if child not in self._processes:
                with suppress(PprofpyError):  # not all of them need be Python
                    self.watch_one(open_target(child))

    def watch_one(self, target: Target) -> None:
        """As `watch`, without its children."""
        runtime = find_runtime(target)
        try:
            self._enter(runtime)
        except OSError as error:
            raise TargetError(f"process {target.pid} has ended") from error
        entry = np.zeros((), _TARGET)
        entry["runtime"], entry["code_type"], entry["gil"] = runtime.address, runtime.code_type, runtime.gil
        entry["flags"] = _FOLLOW if self._children else 0
        entry["thread_slot"] = slot = thread_slot(runtime)
        if not slot:
            self._tell_of_limit(target)
        for name in _LAYOUT_FIELDS:
            entry[name] = getattr(runtime.layout, name)
        self._targets.put(target.pid, entry)
        if not target.is_alive():  # the kernel will not tell us: its number may be another's soon
            self._targets.delete(np.array([target.pid], _U4))
            raise TargetError(f"process {target.pid} has ended")

    @property
    def runtimes(self) -> dict[int, Runtime]:
        """pid -> interpreter, of all processes that are or were walked."""
        return {pid: process.runtime for pid, process in self._processes.items()}

    def poll(self) -> None:
        """Take in what is new. The ring buffer holds 8 MB: call it some ten times a second.

        Raises:
            NotPossibleError: The kernel's walks are not what is read from outside.
        """
        self._look_again()
        self._polls += 1
        for process in self._processes.values():
            process.reader = process.runtime.reader(_READING_S)
        self._records.read(self._take)

    def _take(self, record: bytes) -> None:
        kind = int.from_bytes(record[:4], "little")
        if kind == _KIND_STACK:
            self._take_stack(record)
        elif kind == _KIND_CODE:
            self._take_code(record)
        elif kind == _KIND_EXEC:
            self._became[_EVENT.unpack(record)[1]] = time.monotonic() + _PATIENCE_S
        elif kind == _KIND_FORK:
            self._take_fork(*_EVENT.unpack(record)[1:3])

    def frames(self, stack_id: int) -> Stack:
        """A stack, leaf-first; its root end is TRUNCATED or UNREADABLE if some of it is missing. `()` for id 0.

        A stack that the kernel has numbered is known after the next `poll()`.
        """
        if not stack_id & 1:
            return self._numbered[stack_id // 2]
        found = self._stacks.get(stack_id)
        return found if found is not None else self._older.get(stack_id, (UNREADABLE,))

    def number(self, stack_id: int) -> int:
        """A number for what a stack reads as, valid for good; 0 for no stack."""
        known = self._numbers.get(stack_id)
        if known is not None:
            return known
        number = self._numbered.number(self.frames(stack_id))
        if stack_id in self._stacks:
            self._numbers[stack_id] = number
        return number

    def spelled(self, number: int) -> Stack:
        """The stack with such a number, leaf-first."""
        return self._numbered[number]

    def add(self, stack: Stack) -> int:
        """An id for a stack that was read from outside: even, and never forgotten. Those of the kernel are odd."""
        return 2 * self._numbered.number(stack)

    def make_room(self, *in_use: Iterable[int]) -> bool:
        """Forget stacks if there are many; returns whether that was so.

        Args:
            in_use: Ids that are still in the kernel's tables, all of which have been looked at just now. What threads
                come across meanwhile stays known until the next time.
        """
        if len(self._stacks) <= _MANY_STACKS:
            return False
        self.forget(*in_use)
        return True

    def forget(self, *in_use: Iterable[int]) -> None:
        """Free the memory of stacks; ids from before the previous call become unknown, unless they are in use."""
        still = {one: self._older[one] for ids in in_use for one in set(ids) if one in self._older}
        self._older, self._stacks = {**still, **self._stacks}, {0: ()}
        self._older_codes, self._codes = self._codes, {}  # stacks in the ring buffer are of code that is not sent anew
        self._frames, self._same, self._numbers, self._lines = {}, {}, {}, {}
        self._large_bytes = 0
        self._epoch.put(0, int(self._epoch.get(0)) + 1)  # so that the kernel sends anew

    def __len__(self) -> int:
        """How many stacks are in memory."""
        return len(self._stacks) + len(self._older)

    def losses(self) -> dict[str, int]:
        """How many walks gave no stack, or not all of it, and what has no name."""
        _, counts = self._missed.items()
        found = {name: int(count) for name, count in zip(_MISSED, counts.sum(axis=1), strict=True)}
        found |= {"python_unnamed": self.unnamed, "python_unlined": self.unlined}
        found["python_undecoded"] = self._records.undecoded
        found["python_threads_hidden"] = self._beyond
        return {name: count for name, count in found.items() if count}

    @property
    def truncated(self) -> int:
        """How many walks ended before the stack's root."""
        return self.losses().get(_TRUNCATED, 0)

    @property
    def failed(self) -> int:
        """How many walks failed, wholly or in part, for another reason than depth."""
        found = self.losses()
        return sum(found.get(name, 0) for name in _FAILED)

    def collection(self, engine: str, target: Target | None, losses: dict[str, int]) -> Collection:
        """How complete a recording is.

        Args:
            engine: What recorded it.
            target: The process; None for many.
            losses: How much of what was lost, besides stacks.
        """
        return Collection(
            engine=f"pprofpy {__version__}, {engine}",
            target=str(target) if target else "",
            dropped=sum(losses.values()),
            truncated=self.truncated,
            errors=self.failed,
            losses=losses | self.losses(),
        )

    def close(self) -> None:
        """Let go of the processes' folders."""
        for process in self._processes.values():
            os.close(process.root)
        self._processes.clear()

    # -- processes -------------------------------------------------------------------------------------------------

    def _tell_of_limit(self, target: Target) -> None:
        """Say at once what cannot be seen of a process with more threads than the kernel's walk goes through."""
        with suppress(OSError):
            beyond = procfs.status(target.pid).thread_count - _MAX_THREADS
            if beyond > 0:
                self._beyond += beyond
                self._remarks.append(
                    f"{target} has {beyond} threads more than the {_MAX_THREADS} whose stacks can be found without "
                    "glibc: those count as running no Python"
                )

    def _enter(self, runtime: Runtime) -> None:
        if known := self._processes.pop(runtime.pid, None):
            os.close(known.root)
        root = os.open(procfs.folder_of(runtime.pid) / "root", os.O_PATH | os.O_CLOEXEC)
        modules = ModuleNames(Path(f"/proc/self/fd/{root}"), runtime.pid)
        self._processes[runtime.pid] = _Process(runtime, runtime.reader(), modules, root)

    def _take_fork(self, child: int, parent: int) -> None:
        if process := self._processes.get(parent):
            with suppress(OSError):
                self._enter(replace(process.runtime, pid=child))

    def _look_again(self) -> None:
        """At processes that have become another program."""
        for pid, deadline in list(self._became.items()):
            try:
                self.watch_one(open_target(pid))
            except (PprofpyError, OSError):
                if time.monotonic() < deadline and procfs.exists(pid):
                    continue  # it may only just be starting
            del self._became[pid]

    # -- records ---------------------------------------------------------------------------------------------------

    def _take_code(self, record: bytes) -> None:
        (
            _,
            tgid,
            code,
            table,
            fingerprint,
            first_line,
            name_bytes,
            name_width,
            file_bytes,
            file_width,
            table_bytes,
            _,
        ) = _CODE_HEAD.unpack_from(record)
        name_at = _CODE_HEAD.size
        file_at, table_at = name_at + _NAME_BYTES, name_at + _NAME_BYTES + _FILE_BYTES
        lines = record[table_at : table_at + table_bytes]
        if len(lines) < table_bytes:
            lines = self._large_table(tgid, table)
        found = Code(
            name=decode_text(record[name_at : name_at + name_bytes], name_width),
            filename=decode_text(record[file_at : file_at + file_bytes], file_width),
            first_line=first_line,
            table=lines,
        )
        self._codes[tgid, code, fingerprint] = self._same.setdefault(found, found)

    def _large_table(self, tgid: int, table: int) -> bytes:
        """A line table that the kernel does not send; empty if it cannot be read, or there are too many of them."""
        process = self._processes.get(tgid)
        if process and self._large_bytes < _MOST_LARGE_BYTES:
            with suppress(UnreadableError, PprofpyError):
                lines = process.reader.blob(table)
                self._large_bytes += len(lines)
                return lines
        self.unlined += 1
        return b""

    def _take_stack(self, record: bytes) -> None:
        _, tgid, stack_id, thread_state, _, flags, count, first = _STACK_HEAD.unpack_from(record)
        start, size = _STACK_HEAD.size, _FRAME_KEY.size
        keys = [record[start + i * size : start + (i + 1) * size] for i in range(first, count)]
        frames = [frame for key in keys if (frame := self._frame(tgid, key))]
        if flags & _CUT:
            frames.append(TRUNCATED)
        elif flags & _BROKEN:
            frames.append(UNREADABLE)
        self._stacks[stack_id] = tuple(frames)
        process = self._processes.get(tgid)
        if process and not process.comparison.is_settled:
            self._compare(process, thread_state, [code for key in keys if (code := _FRAME_KEY.unpack(key)[0])])

    def _frame(self, tgid: int, key: bytes) -> Frame | None:
        memo = (tgid, key)
        if memo in self._frames:
            return self._frames[memo]
        frame = self._name(tgid, *_FRAME_KEY.unpack(key))
        if frame is not UNREADABLE:  # else it may be readable next time
            self._frames[memo] = frame
        return frame

    def _name(self, tgid: int, code: int, instruction: int, fingerprint: int) -> Frame | None:
        process = self._processes.get(tgid)
        if not code:
            return None
        found = self._code_of(process, (tgid, code, fingerprint)) if process else None
        if found is None or process is None:
            self.unnamed += 1
            return UNREADABLE
        module = process.modules.name(found.filename)
        function = Function(f"{module}.{found.name}" if module else found.name, found.name, found.filename)
        version = process.runtime.version
        lines = self._lines.get(version) or self._lines.setdefault(version, LineTables(version))
        return Frame(function, lines.line(found.table, found.first_line, instruction))

    def _code_of(self, process: _Process, key: _CodeKey) -> Code | None:
        _, address, fingerprint = key
        found = self._codes.get(key) or self._older_codes.get(key)
        found = found or self._read_code(process.reader, address, fingerprint)
        if found:
            self._codes[key] = found
        return found

    def _read_code(self, reader: Reader, address: int, fingerprint: int) -> Code | None:
        """A code object from the process itself, unless another has taken its place."""

        def read() -> Code | None:
            head = reader.code_head(address)
            return reader.code_from(head) if reader.fingerprint(head) == fingerprint else None

        with suppress(UnreadableError, BlockedError, PprofpyError):
            return bounded(f"process {reader.memory.pid}", read)
        return None

    def _compare(self, process: _Process, thread_state: int, codes: list[int]) -> None:
        """Hold a stack of the kernel's against one read from outside: the root, which hardly changes, must be the same.

        Raises:
            NotPossibleError: It never is.
        """
        try:
            outside = bounded(f"process {process.runtime.pid}", lambda: process.reader.frames(thread_state))
        except (UnreadableError, BlockedError, TargetError, ImplausibleTargetError):
            return
        if process.comparison.differs(self._polls, thread_state, codes, outside):
            raise NotPossibleError(
                f"the stacks that the kernel sees in process {process.runtime.pid} are not those read from outside",
                "use --engine py-spy, and please report this with the output of 'uname -a'",
            )
