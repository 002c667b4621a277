"""Python stacks that the kernel has walked (`python.h`), spelled out.

    program = load(with_python(Source("my.bpf.c", {...})), python_constants() | {...})
    stacks = PythonStacks(program)
    stacks.watch(target)            # again for each further process; its children, too, if wanted
    stacks.poll()                   # some ten times a second
    stacks.frames(stack_id), stacks.labels(stack_id)
    number = stacks.number(stack_id)  # to sum up by: the same for all that read the same
    stacks.spelled(number), stacks.labels_of(number)
    stacks.make_room(in_use)        # after each reading of the program's tables
    stacks.end_window()             # when sums by number begin anew

New stacks and code objects come through a ring buffer, names included. Reading the process's memory is only needed for
what the kernel could not send: huge line tables, and code that is new far down in a deep stack.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import numpy as np

from pprofpy import __version__
from pprofpy.collectors.cpython.linetable import LineTables
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.objects import Code, ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.versions import LineTable
from pprofpy.collectors.kernel.label_options import NO_LABELS, LabelOptions
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.pystacks.label_sources import LabelSources
from pprofpy.collectors.pystacks.labels import Labels
from pprofpy.collectors.pystacks.marks import AWAITS, COLLECTS, TRUNCATED, UNREADABLE
from pprofpy.collectors.pystacks.missed import CUT_OFF, FAILED, missed
from pprofpy.collectors.pystacks.numbered import NOTHING, Numbered, Walked
from pprofpy.collectors.pystacks.processes import Process, Processes
from pprofpy.collectors.pystacks.records import (
    AWAITED_BY,
    BROKEN,
    CUT,
    KIND_CODE,
    KIND_EXEC,
    KIND_FORK,
    KIND_LABELS,
    KIND_STACK,
    CodeRecord,
    StackRecord,
    code_of,
    frame_key,
    kind_of,
    process_event_of,
    process_of,
    stack_of,
)
from pprofpy.errors import ImplausibleTargetError, NotPossibleError, PprofpyError, TargetError
from pprofpy.model.profile import Collection, Frame, Function, LabelSet, Stack
from pprofpy.system.blocking import BlockedError, bounded
from pprofpy.target import Target

_U4 = np.dtype("u4")

_What = TypeVar("_What")

_CodeKey = tuple[int, int, int]
"""Process, address, fingerprint: what an address held at some time."""

_MANY_STACKS = 32_768
"""Half of what the kernel itself remembers (PYTHON_KNOWN): twice as many may be in memory."""

_SOME_STACKS, _KEEP_NS = 2048, 60_000_000_000
"""More than this are forgotten once a minute: those that are still met cost the kernel little to send anew."""

_MOST_LARGE_BYTES = 16 << 20
"""Of line tables that the kernel does not send, so much is kept at most."""


class PythonStacks:
    """The stacks that one loaded program has met.

    Args:
        program: Includes python.h.
        children: Also walk the processes that a watched one starts.
        labels: What else to label stacks with; `python_constants` must have been given the same.
        needs_lock: Walk only processes whose interpreter lock can be watched.

    Attributes:
        processes: Whose stacks are walked.
        unlined: How many line tables could not be read.

    Raises:
        NotPossibleError: The kernel is too old.
    """

    def __init__(
        self, program: Program, *, children: bool = False, labels: LabelOptions = NO_LABELS, needs_lock: bool = False
    ) -> None:
        self._sources = LabelSources(program, labels)
        self.processes = Processes(program, children=children, on_entry=self._sources.enter, needs_lock=needs_lock)
        self._program = program
        self._epoch = program.table("python_epoch", _U4, _U4)
        self._records = program.records("python_records")
        self._codes: dict[_CodeKey, Code] = {}
        self._older_codes: dict[_CodeKey, Code] = {}
        self._frames: dict[tuple[int, bytes], Frame | None] = {}
        self._same: dict[Code, Code] = {}
        self._lines: dict[LineTable, LineTables] = {}
        self._large_bytes = 0
        self._polls = 0
        self._stacks: dict[int, Walked] = {0: NOTHING}
        self._older: dict[int, Walked] = {}
        self._forgot_ns = time.monotonic_ns()
        self._numbered: Numbered[Walked] = Numbered(NOTHING)
        self._labels = Labels(labels)
        self._numbers: dict[int, int] = {}
        self._added: set[int] = set()
        self._unnamed: set[_CodeKey] = set()
        self._unnamed_before = 0
        self.unlined = 0
        self._epoch.put(0, 1)

    def watch(self, target: Target) -> None:
        """Have the stacks of a process walked from now on. See `Processes.watch`."""
        self.processes.watch(target)

    @property
    def runtimes(self) -> dict[int, Runtime]:
        """See `Processes.runtimes`."""
        return self.processes.runtimes

    def poll(self) -> dict[int, PprofpyError]:
        """Take in what is new. The ring buffer holds 8 MB: call it some ten times a second.

        Returns:
            See `Processes.poll`.

        Raises:
            NotPossibleError: The kernel's walks are not what is read from outside.
        """
        given_up = self.processes.poll()
        self._sources.poll(self.processes)
        self._polls += 1
        self._records.read(self._take)
        return given_up

    def _take(self, record: bytes) -> None:
        kind = kind_of(record)
        if kind == KIND_STACK:
            self._take_stack(stack_of(record))
        elif kind == KIND_CODE:
            self._take_code(code_of(record))
        elif kind == KIND_LABELS:
            self._take_labels(record)
        elif kind == KIND_EXEC:
            self.processes.take_exec(process_event_of(record)[0])
        elif kind == KIND_FORK:
            self.processes.take_fork(*process_event_of(record))

    def frames(self, stack_id: int) -> Stack:
        """A stack, leaf-first; its root end is TRUNCATED or UNREADABLE if some of it is missing. `()` for id 0.

        A stack that the kernel has numbered is known after the next `poll()`.
        """
        return self._walked(stack_id).frames

    def labels(self, stack_id: int) -> LabelSet:
        """What a stack is labelled with, besides its thread."""
        return self._walked(stack_id).labels

    def _walked(self, stack_id: int) -> Walked:
        if not stack_id & 1:
            return self._numbered[stack_id // 2]
        return self._stacks.get(stack_id) or self._older.get(stack_id) or Walked((UNREADABLE,), ())

    def has(self, stack_id: int) -> bool:
        """Is this stack known, or will `frames` say that it cannot be read?"""
        return not stack_id & 1 or stack_id in self._stacks or stack_id in self._older

    def number(self, stack_id: int) -> int:
        """A number for what a stack reads as; 0 for no stack. Valid until `end_window` was called twice."""
        known = self._numbers.get(stack_id)
        if known is not None:
            return known
        number = self._numbered.number(self._walked(stack_id))
        if stack_id in self._stacks:
            self._numbers[stack_id] = number
        return number

    def spelled(self, number: int) -> Stack:
        """The stack with such a number, leaf-first."""
        return self._numbered[number].frames

    def labels_of(self, number: int) -> LabelSet:
        """The labels of what has such a number."""
        return self._numbered[number].labels

    def knows(self, number: int) -> bool:
        """Is this number still valid?"""
        return number in self._numbered

    def add(self, stack: Stack, labels: LabelSet = ()) -> int:
        """An id for a stack that was read from outside: even, and never forgotten. Those of the kernel are odd."""
        number = self._numbered.number(Walked(stack, labels))
        self._added.add(number)
        return 2 * number

    def end_window(self) -> None:
        """Sums by number begin anew. Where there are many, those that are not given out in a window are forgotten."""
        if len(self._numbered) > _SOME_STACKS:
            self._numbered.forget(self._added)
            self._numbers = {}

    def make_room(self, *in_use: Iterable[int]) -> bool:
        """Forget stacks if there are many; returns whether that was so.

        Args:
            in_use: Ids that are still in the kernel's tables, all of which have been looked at just now. What threads
                come across meanwhile stays known until the next time.
        """
        is_time = time.monotonic_ns() - self._forgot_ns > _KEEP_NS
        if len(self._stacks) <= (_SOME_STACKS if is_time else _MANY_STACKS):
            return False
        self.forget(*in_use)
        return True

    def forget(self, *in_use: Iterable[int]) -> None:
        """Free the memory of stacks; ids from before the previous call become unknown, unless they are in use."""
        still = {one: self._older[one] for ids in in_use for one in set(ids) if one in self._older}
        self._older, self._stacks = {**still, **self._stacks}, {0: NOTHING}
        self._labels.forget()
        self._unnamed_before, self._unnamed = self.unnamed, set()
        self._older_codes, self._codes = self._codes, {}  # stacks in the ring buffer are of code that is not sent anew
        self._frames, self._same, self._numbers, self._lines = {}, {}, {}, {}
        self._large_bytes, self._forgot_ns = 0, time.monotonic_ns()
        self._epoch.put(0, int(self._epoch.get(0)) + 1)  # so that the kernel sends anew

    def __len__(self) -> int:
        """How many stacks are in memory."""
        return len(self._stacks) + len(self._older)

    @property
    def unnamed(self) -> int:
        """How many functions were gone before they could be named."""
        return self._unnamed_before + len(self._unnamed)

    def losses(self) -> dict[str, int]:
        """How many walks gave no stack, or not all of it, and what has no name."""
        found = missed(self._program) | {"python_unnamed": self.unnamed, "python_unlined": self.unlined}
        found["python_undecoded"] = self._records.undecoded
        found["python_threads_hidden"] = self.processes.hidden_threads
        return {name: count for name, count in found.items() if count}

    @property
    def truncated(self) -> int:
        """How many walks ended before the stack's root."""
        return self.losses().get(CUT_OFF, 0)

    @property
    def failed(self) -> int:
        """How many walks failed, wholly or in part, for another reason than depth."""
        found = self.losses()
        return sum(found.get(name, 0) for name in FAILED)

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
            notes=self.notes(),
        )

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of processes and labels that are missing."""
        return (*self.processes.notes(), *self.label_notes())

    def label_notes(self) -> tuple[str, ...]:
        """What a reader should know of labels that are missing."""
        return (*self._labels.notes(), *(f"No label of {problem}." for problem in self._sources.problems()))

    def close(self) -> None:
        """Let go of the processes."""
        self.processes.close()

    # -- records ---------------------------------------------------------------------------------------------------

    def _take_code(self, record: CodeRecord) -> None:
        code = record.code
        if record.is_cut:
            process = self.processes.get(record.tgid)
            read = process and _read(process.reader, record.address, record.fingerprint, process.reader.names)
            code = replace(code, name=read[0], filename=read[1]) if read else code
        if record.lacks_table:
            code = replace(code, table=self._large_table(record.tgid, record.table))
        self._codes[record.tgid, record.address, record.fingerprint] = self._same.setdefault(code, code)

    def _take_labels(self, record: bytes) -> None:
        if process := self.processes.get(process_of(record)):
            self._labels.take(record, process.runtime.known.objects)

    def _large_table(self, tgid: int, table: int) -> bytes:
        """A line table that the kernel does not send; empty if it cannot be read, or there are too many of them."""
        process = self.processes.get(tgid)
        if process and self._large_bytes < _MOST_LARGE_BYTES:
            with suppress(UnreadableError, PprofpyError):
                lines = process.reader.blob(table)
                self._large_bytes += len(lines)
                return lines
        self.unlined += 1
        return b""

    def _take_stack(self, record: StackRecord) -> None:
        frames = [COLLECTS[record.collecting]] if record.collecting in COLLECTS else []
        frames += [frame for key in record.keys if (frame := self._frame(record.tgid, key))]
        if record.flags & CUT:
            frames.append(TRUNCATED)
        elif record.flags & BROKEN:
            frames.append(UNREADABLE)
        self._stacks[record.stack_id] = Walked(tuple(frames), self._labels.of(record.labels))
        process = self.processes.get(record.tgid)
        if process and not process.comparison.is_settled:
            codes = [code for key in record.keys if (code := frame_key(key).code) > AWAITED_BY]
            self._compare(process, record.thread_state, codes)

    def _frame(self, tgid: int, key: bytes) -> Frame | None:
        memo = (tgid, key)
        if memo in self._frames:
            return self._frames[memo]
        frame = self._name(tgid, *frame_key(key))
        if frame is not UNREADABLE:  # else it may be readable next time
            self._frames[memo] = frame
        return frame

    def _name(self, tgid: int, code: int, instruction: int, fingerprint: int) -> Frame | None:
        process = self.processes.get(tgid)
        if not code:
            return None
        if code == AWAITED_BY:
            return AWAITS
        found = self._code_of(process, (tgid, code, fingerprint)) if process else None
        if found is None or process is None:
            self._unnamed.add((tgid, code, fingerprint))
            return UNREADABLE
        module = process.modules.name(found.filename)
        name = f"{module}.{found.name}" if module else found.name
        function = Function(name, found.name, found.filename, max(found.first_line, 0))
        form = process.runtime.known.lines
        lines = self._lines.get(form) or self._lines.setdefault(form, LineTables(form))
        return Frame(function, lines.line(found.table, found.first_line, instruction))

    def _code_of(self, process: Process, key: _CodeKey) -> Code | None:
        _, address, fingerprint = key
        found = self._codes.get(key) or self._older_codes.get(key)
        if found is None:
            found = _read(process.reader, address, fingerprint, process.reader.code_from)
            self.unlined += found is not None and not found.table
        if found:
            self._codes[key] = found
        return found

    def _compare(self, process: Process, thread_state: int, codes: list[int]) -> None:
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


def _read(reader: ObjectReader, address: int, fingerprint: int, what: Callable[[bytes], _What]) -> _What | None:
    """What a code object says in the process itself, unless another has taken its place."""

    def read() -> _What | None:
        head = reader.code_head(address)
        return what(head) if reader.fingerprint(head) == fingerprint else None

    with suppress(UnreadableError, BlockedError, PprofpyError):
        return bounded(f"process {reader.memory.pid}", read)
    return None
