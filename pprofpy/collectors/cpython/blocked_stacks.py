"""Stacks of threads that are blocked, read from outside: as long as they are, nothing moves.

Which thread a stack belongs to is not written anywhere that all versions have. But a thread's identity for Python is an
address (of glibc's and musl's thread descriptor), and this lies in the same piece of memory as the thread's stack,
above it. Only the main thread has its stack elsewhere; its state is the oldest. A thread that has gone from one
interpreter into another has a state in each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from pprofpy.collectors.cpython.linetable import LineTables
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.modules import ModuleNames
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.versions import STATUS_BOUND
from pprofpy.model.profile import Frame, Function
from pprofpy.target import procfs

_MOST_FRAMES = 512
_MOST_STATES = 256
"""So many interpreters are told apart that one thread has been in."""

_BEHIND = 1 << 63
"""A distance on the C stack, if not on this one."""


class BlockedStack(NamedTuple):
    """The stack of a blocked thread.

    Attributes:
        thread_state: The address of its PyThreadState.
        frames: Leaf-first.
    """

    thread_state: int
    frames: tuple[Frame, ...]


def blocked_stacks(runtime: Runtime, stack_pointers: Mapping[int, int]) -> dict[int, BlockedStack]:
    """The Python stacks of blocked threads; those without are left out.

    Args:
        runtime: The interpreter of their process.
        stack_pointers: tid -> stack pointer.

    Raises:
        TargetError: The process has ended.
        ImplausibleTargetError: There is more to read than can be.
    """
    reader = runtime.snapshot_reader()
    frames, found = _Frames(runtime, reader), {}
    for tid, thread_state in _thread_states(runtime, reader, stack_pointers).items():
        with suppress(UnreadableError):
            if stack := tuple(frames.of(thread_state)):
                found[tid] = BlockedStack(thread_state, stack)
    return found


class _Frames:
    """Reads the frames of stacks. Thousands of threads wait at a few places: each of these is read once."""

    def __init__(self, runtime: Runtime, reader: ObjectReader) -> None:
        self._layout = runtime.layout
        self._reader = reader
        self._modules = ModuleNames(runtime.root, runtime.pid)
        self._lines = LineTables(runtime.known.lines)
        self._known: dict[tuple[int, int], Frame] = {}

    def of(self, thread_state: int) -> list[Frame]:
        """The frames of a thread, leaf-first."""
        places = self._reader.places(thread_state, _MOST_FRAMES)
        return [self._known.get(place) or self._read(*place) for place in places]

    def _read(self, code_at: int, place: int) -> Frame:
        code, layout = self._reader.code(code_at), self._layout
        if layout.code_instructions:
            instruction = (place - code_at - layout.code_instructions) >> 1
        else:
            instruction = place & 0x7FFFFFFF
        module = self._modules.name(code.filename)
        name = f"{module}.{code.name}" if module else code.name
        function = Function(name, code.name, code.filename, max(code.first_line, 0))
        frame = Frame(function, self._lines.line(code.table, code.first_line, instruction))
        self._known[code_at, place] = frame
        return frame


class _State(NamedTuple):
    """A PyThreadState.

    Attributes:
        address: Where it is.
        ident: Whose it is.
        has_frames: Does it lead to frames?
        mark: Tells whether, or since when, its thread is in it: what `thread_status` or `thread_cframe` leads to.
    """

    address: int
    ident: int
    has_frames: bool
    mark: int


def _thread_states(runtime: Runtime, reader: ObjectReader, stack_pointers: Mapping[int, int]) -> dict[int, int]:
    """tid -> PyThreadState, of the innermost interpreter that the thread is in."""
    states: list[_State] = []
    with suppress(UnreadableError):
        for address in reader.thread_states(runtime.address):
            states.append(_read_state(runtime, reader, address))
    areas = _memory_areas(runtime.pid)
    known = {area: state.ident for state in states if (area := _area_of(areas, state.ident))}
    whose = {tid: known[area] for tid, at in stack_pointers.items() if (area := _area_of(areas, at)) in known}
    if runtime.pid in stack_pointers and states:
        whose.setdefault(runtime.pid, states[-1].ident)
    own: defaultdict[int, list[_State]] = defaultdict(list)
    for state in states:
        if len(own[state.ident]) < _MOST_STATES:
            own[state.ident].append(state)
    on_stacks = sorted((state.mark, state.address) for state in states if state.has_frames)
    is_borrowed = runtime.layout.thread_cframe > 0
    found = {}
    for tid, ident in whose.items():
        stack_pointer = stack_pointers[tid]
        state = min(own[ident], key=lambda one: _distance(runtime, one, stack_pointer))
        found[tid] = state.address
        if is_borrowed and _distance(runtime, state, stack_pointer) < _BEHIND:
            place = bisect_left(on_stacks, (stack_pointer, 0)) % len(on_stacks)
            found[tid] = on_stacks[place][1]
    return found


def _read_state(runtime: Runtime, reader: ObjectReader, address: int) -> _State:
    memory, layout, mark = reader.memory, runtime.layout, 0
    has_frames = False
    with suppress(UnreadableError):
        has_frames = reader.leaf_frame(address) > 0
        if layout.thread_status:
            mark = memory.half_word(address + layout.thread_status)
        elif layout.thread_cframe:
            mark = memory.word(address + layout.thread_cframe)
        else:
            holders = (
                memory.word(runtime.address + layout.runtime_current),
                memory.word(runtime.gil + layout.gil_holder),
            )
            mark = int(address in holders)
    return _State(address, memory.word(address + layout.thread_id), has_frames, mark)


def _distance(runtime: Runtime, state: _State, stack_pointer: int) -> int:
    """How far a thread is from being in this state; the choice of `python_find_thread_state` in probes/python.h."""
    if not state.has_frames:
        return _BEHIND << 1
    if runtime.layout.thread_status:
        return ~state.mark & STATUS_BOUND
    if runtime.layout.thread_cframe:
        return (state.mark - stack_pointer) % (_BEHIND << 1)
    return 1 - state.mark


def _memory_areas(pid: int) -> list[tuple[int, int]]:
    """(start, end) of what is mapped into a process, rising."""
    with suppress(OSError):
        return [(mapping.start, mapping.end) for mapping in procfs.mappings(pid)]
    return []


def _area_of(areas: list[tuple[int, int]], address: int) -> tuple[int, int] | None:
    index = bisect_right(areas, (address, 1 << 64)) - 1
    return areas[index] if index >= 0 and areas[index][0] <= address < areas[index][1] else None
