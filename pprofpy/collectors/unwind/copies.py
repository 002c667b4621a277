"""Native stacks of threads that the kernel has copied (`native.h`), followed and joined to Python's here.

    natives = NativeStacks(program)
    arrived = natives.arrived()     # some 20 times a second
    stacks.poll()
    natives.poll(stacks.runtimes, stacks.frames, arrived)
    for sample in natives.take():
        natives.merged(stacks.frames(sample.python_stack), sample.chain)

The Python stacks that samples name are sent before them, and must be known first: following copies may take a second
while files are read, and what arrives meanwhile names stacks that the poll before has not met.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence, Set
from collections.abc import Mapping as Dict
from typing import NamedTuple

import numpy as np

from pprofpy.arch import here
from pprofpy.budget import Budget
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.versions import NONE
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.types import struct_offsets
from pprofpy.collectors.pystacks.marks import COLLECTS
from pprofpy.collectors.unwind.codemap import CodeMap, Images
from pprofpy.collectors.unwind.image import NativeFunction
from pprofpy.collectors.unwind.stackcopy import NOTHING, PAGE_BYTES, Chain, Ending, StackCopy
from pprofpy.collectors.unwind.unwinder import Unwinder
from pprofpy.collectors.unwind.wholestack import PlacedFrame, merged
from pprofpy.model.profile import Frame, Stack

_MOST_STEPS, _SECONDS = 50_000_000, 1.0
"""What reading the tables of files may take in one poll."""

_MOST_UNFINISHED = 256
_MANY_STACKS = 65_536
_REGISTERS, _LOOPS, _STACK_BYTES, PARTS = 34, 128, 28_672, 8
"""Room for the registers of any machine, for evaluation loops and for a part of a stack; source: native.h."""

_RECORD = np.dtype(
    [
        ("python_stack", "u8"),
        ("off_ns", "u8"),
        ("tid", "u4"),
        ("tgid", "u4"),
        ("kernel_stack", "i4"),
        ("part", "u4"),
        ("is_last", "u4"),
        ("is_cut", "u4"),
        ("stack_start", "u8"),
        ("stack_bytes", "u4"),
        ("absent", "u4"),
        ("loop_count", "u4"),
        ("group_count", "u4"),
        ("walk_flags", "u4"),
        ("unused", "u4"),
        ("registers", "u8", (_REGISTERS,)),
        ("loops", "u4", (_LOOPS,)),
        ("groups", "u2", (_LOOPS,)),
        ("stack", "u1", (_STACK_BYTES,)),
    ]
)
NATIVE_LAYOUTS = {"native_record": _RECORD}
"""For the Source of a program that includes native.h."""

_HEAD, _REGISTER_FILE = struct.Struct("<QQIIiIIIQIIIIII"), struct.Struct(f"<{_REGISTERS}Q")
_LOOPS_AT = _HEAD.size + _REGISTER_FILE.size
_GROUPS_AT = _LOOPS_AT + 4 * _LOOPS
_CONTENT_AT = _GROUPS_AT + 2 * _LOOPS

_BROKEN_OFF = {
    Ending.CUT: "native_cut",
    Ending.NO_TABLE: "native_no_tables",
    Ending.BROKEN: "native_broken",
    Ending.TOO_LONG: "native_too_long",
    Ending.UNPLACED: "native_unplaced",
}


def native_constants() -> dict[str, int]:
    """Return what native.h must know of the running kernel.

    Raises:
        NotPossibleError: This kernel does not tell.
    """
    members = {"TASK_MM": "task_struct.mm", "MM_START_STACK": "mm_struct.start_stack"}
    return struct_offsets(members, "native stacks cannot be copied in it")


class _Head(NamedTuple):
    """The head of a `struct native_record`."""

    python_stack: int
    off_ns: int
    tid: int
    tgid: int
    kernel_stack: int
    part: int
    is_last: int
    is_cut: int
    stack_start: int
    stack_bytes: int
    absent: int
    loop_count: int
    group_count: int
    walk_flags: int
    unused: int


class NativeSample(NamedTuple):
    """What samples are counted by; `chain` is for `NativeStacks.frames`."""

    python_stack: int
    tid: int
    tgid: int
    kernel_stack: int
    chain: int


Switch = tuple[int, int]
"""A thread, and when it left its CPU (monotonic clock, nanoseconds)."""


class NativeStacks:
    """The native stacks that one loaded program has copied.

    Args:
        program: Includes native.h.
    """

    def __init__(self, program: Program) -> None:
        self._records = program.records("native_records")
        self._images = Images()
        self._processes: dict[int, tuple[Runtime, Unwinder]] = {}
        self._functions: list[NativeFunction] = []
        self._numbers: dict[NativeFunction, int] = {}
        self._parts: dict[int, tuple[bytes, int]] = {}
        self._chains: list[Chain] = []
        self._chain_numbers: dict[Chain, int] = {}
        self._samples: Counter[NativeSample] = Counter()
        self._switches: dict[Switch, int] = {}
        self._ended_switches: Set[Switch] = frozenset()
        self._endings: Counter[Ending] = Counter()

    def arrived(self) -> int:
        """Return how far the kernel has copied, for `poll`."""
        return self._records.arrived()

    def poll(self, runtimes: Dict[int, Runtime], python: Callable[[int], Stack], until: int) -> None:
        """Follow what was copied. The ring buffer holds 16 MB: call it some 20 times a second.

        Args:
            runtimes: Of the processes, as the poll of the Python stacks has left them.
            python: Gives the frames of a Python stack, leaf-first.
            until: What `arrived` has returned before that poll.
        """
        current: dict[int, Unwinder] = {}
        budget = Budget("native files", steps=_MOST_STEPS, seconds=_SECONDS)

        def take(record: bytes) -> None:
            head = _Head._make(_HEAD.unpack_from(record))
            joined = self._joined(head, record)
            if joined is None:
                return
            if head.tgid not in current and head.tgid in runtimes:
                current[head.tgid] = self._unwinder(runtimes[head.tgid])
            chain = NOTHING
            if head.tgid in current:
                copy = _stack_copy(head, record, *joined, python(head.python_stack))
                chain = current[head.tgid].follow(copy, budget)
            self._endings[chain.ending] += 1
            number = self._number(chain)
            if head.off_ns:
                self._switches[head.tid, head.off_ns] = number
            else:
                self._samples[NativeSample(head.python_stack, head.tid, head.tgid, head.kernel_stack, number)] += 1

        self._records.read(take, until)
        for pid in self._processes.keys() - runtimes.keys():
            del self._processes[pid]

    def _joined(self, head: _Head, record: bytes) -> tuple[bytes, int] | None:
        """What was copied of a thread's stack, and which pages are absent, once the last part is there. Where one found
        no room, none come after it."""
        content, absent = self._parts.pop(head.tid, (b"", 0)) if head.part else (b"", 0)
        absent |= head.absent << (len(content) // PAGE_BYTES)
        content += record[_CONTENT_AT : _CONTENT_AT + head.stack_bytes]
        if head.is_last:
            return content, absent
        if len(self._parts) >= _MOST_UNFINISHED:
            self._parts.clear()  # threads that have ended, or whose other parts found no room
        self._parts[head.tid] = content, absent
        return None

    def _number(self, chain: Chain) -> int:
        number = self._chain_numbers.setdefault(chain, len(self._chains))
        if number == len(self._chains):
            self._chains.append(chain)
        return number

    def take(self) -> Counter[NativeSample]:
        """How often each sample was met since this was asked the last time."""
        found, self._samples = self._samples, Counter()
        return found

    def chain_at(self, switch: Switch) -> int | None:
        """Return the chain that a thread left its CPU with; None if it was not copied."""
        return self._switches.get(switch)

    def forget_switches(self, in_use: Set[Switch]) -> None:
        """Forget the chains of switches that are not among these, and were not at the last call."""
        ended = self._switches.keys() - in_use
        for switch in ended & self._ended_switches:
            del self._switches[switch]
        self._ended_switches = ended

    def merged(self, python: Sequence[Frame], chain: int) -> list[PlacedFrame]:
        """A whole stack, leaf-first; UNKNOWN stands for what is missing.

        Args:
            python: Its Python functions, leaf-first.
            chain: Its native ones.
        """
        return merged(python, self._chains[chain], self._functions)

    def make_room(self) -> bool:
        """Forget stacks if there are many; returns whether that was so. All samples must have been taken."""
        if len(self._chains) <= _MANY_STACKS:
            return False
        chains = {switch: self._chains[number] for switch, number in self._switches.items()}
        self._chains, self._chain_numbers = [], {}
        self._switches = {switch: self._number(chain) for switch, chain in chains.items()}
        return True

    def losses(self) -> dict[str, int]:
        """Return how many stacks are incomplete, by reason; the program counts those that found no room."""
        found = {name: self._endings[ending] for ending, name in _BROKEN_OFF.items()}
        return found | {"native_undecoded": self._records.undecoded}

    def close(self) -> None:
        """Close the files that were read."""
        self._images.close()

    def _unwinder(self, runtime: Runtime) -> Unwinder:
        """For a process as it is now: it may have become another program."""
        known, unwinder = self._processes.get(runtime.pid, (None, None))
        if unwinder is None or known is not runtime:
            by_name = runtime.layout.frame_owner == NONE
            code = CodeMap(runtime.pid, self._images)
            unwinder = Unwinder(code, self._functions, self._numbers, loops_by_name=by_name)
            self._processes[runtime.pid] = runtime, unwinder
        unwinder.refresh()
        return unwinder


def _stack_copy(head: _Head, record: bytes, content: bytes, absent: int, python: Stack) -> StackCopy:
    registers = _REGISTER_FILE.unpack_from(record, _HEAD.size)
    loops, groups = _loops(head, record)
    marks = int(bool(python) and any(python[0] is mark for mark in COLLECTS.values()))
    return StackCopy(
        tuple(registers[place] for place in here().pt_regs_of_unwinding),
        head.stack_start,
        content,
        absent,
        bool(head.is_cut),
        loops,
        groups,
        len(python) - marks,
        marks,
    )


def _loops(head: _Head, record: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Where evaluation loops are, leaf-first, and how many Python functions each of them runs.

    The thread's first structure in 3.11, and the frame at its root from 3.15 on, are not on its stack.
    """
    distances = np.frombuffer(record, "<u4", min(head.loop_count, _LOOPS), _LOOPS_AT).tolist()
    totals = np.frombuffer(record, "<u2", min(head.group_count, _LOOPS), _GROUPS_AT).tolist()
    while distances and not distances[-1]:
        distances.pop()
    groups = [total - before for before, total in zip([0, *totals], totals, strict=False)]
    if len(distances) > len(groups) and not head.walk_flags:  # 3.11: one that is just being entered comes first
        distances = distances[len(distances) - len(groups) :]
    return tuple(head.stack_start + distance for distance in distances), tuple(groups[: len(distances)])
