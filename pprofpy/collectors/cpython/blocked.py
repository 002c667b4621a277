"""Stacks of threads that are blocked, read from outside: as long as they are, nothing moves.

Which thread a stack belongs to is not written anywhere that all versions have. But a thread's identity for Python is an
address (of glibc's and musl's thread descriptor), and this lies in the same piece of memory as the thread's stack,
above it. Only the main thread has its stack elsewhere; its state is the oldest. A thread that has gone from one
interpreter into another has a state in each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress

from pprofpy.collectors.cpython.layouts import STATUS_BOUND
from pprofpy.collectors.cpython.linetable import line_of
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.modules import ModuleNames
from pprofpy.collectors.cpython.objects import Reader
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.profile import Frame, Function
from pprofpy.target import procfs

_MOST_FRAMES = 512
_BEHIND = 1 << 63
"""A distance on the C stack, if not on this one."""


def blocked_stacks(runtime: Runtime, stack_pointers: Mapping[int, int]) -> dict[int, tuple[Frame, ...]]:
    """The Python stacks of blocked threads, leaf-first; those without are left out.

    Args:
        runtime: The interpreter of their process.
        stack_pointers: tid -> stack pointer.

    Raises:
        TargetError: The process has ended.
    """
    modules = ModuleNames(runtime.root)
    found = {}
    for tid, thread_state in _thread_states(runtime, stack_pointers).items():
        with suppress(UnreadableError):
            if frames := tuple(_frames(runtime, modules, thread_state)):
                found[tid] = frames
    return found


def _thread_states(runtime: Runtime, stack_pointers: Mapping[int, int]) -> dict[int, int]:
    """tid -> PyThreadState, of the innermost interpreter that the thread is in."""
    reader = runtime.reader()
    idents: dict[int, int] = {}
    with suppress(UnreadableError):
        for state in reader.thread_states(runtime.address):
            idents[state] = reader.memory.word(state + runtime.layout.thread_id)
    areas = _memory_areas(runtime.pid)
    known = {area: ident for ident in idents.values() if (area := _area_of(areas, ident))}
    whose = {tid: known[area] for tid, at in stack_pointers.items() if (area := _area_of(areas, at)) in known}
    if runtime.pid in stack_pointers and idents:
        whose.setdefault(runtime.pid, list(idents.values())[-1])
    return {tid: _innermost(runtime, idents, ident, stack_pointers[tid]) for tid, ident in whose.items()}


def _innermost(runtime: Runtime, idents: Mapping[int, int], ident: int, stack_pointer: int) -> int:
    """The state that a thread is in; the same choice as `python_find_thread_state` in bpf/python.h."""
    reader = runtime.reader()
    distances = {state: _distance(runtime, reader, state, stack_pointer) for state in idents}
    own = min((state for state in idents if idents[state] == ident), key=distances.__getitem__)
    if runtime.layout.thread_cframe and distances[own] < _BEHIND:
        return min(distances, key=distances.__getitem__)
    return own


def _distance(runtime: Runtime, reader: Reader, state: int, stack_pointer: int) -> int:
    memory, layout = reader.memory, runtime.layout
    with suppress(UnreadableError):
        if not reader.leaf_frame(state):
            return _BEHIND << 1
        if layout.thread_status:
            return ~memory.half_word(state + layout.thread_status) & STATUS_BOUND
        if layout.thread_cframe:
            return (memory.word(state + layout.thread_cframe) - stack_pointer) % (_BEHIND << 1)
        lock_users = memory.word(runtime.address + layout.runtime_current), memory.word(runtime.gil + layout.gil_holder)
        return int(state not in lock_users)
    return _BEHIND << 1


def _frames(runtime: Runtime, modules: ModuleNames, thread_state: int) -> list[Frame]:
    reader, layout = runtime.reader(), runtime.layout
    found = []
    for code_at, place in reader.places(thread_state, _MOST_FRAMES):
        code = reader.code(code_at)
        if layout.code_instructions:
            instruction = (place - code_at - layout.code_instructions) >> 1
        else:
            instruction = place & 0x7FFFFFFF
        module = modules.name(code.filename)
        function = Function(f"{module}.{code.name}" if module else code.name, code.name, code.filename)
        found.append(Frame(function, line_of(runtime.version, code.table, code.first_line, instruction)))
    return found


def _memory_areas(pid: int) -> list[tuple[int, int]]:
    """(start, end) of what is mapped into a process, rising."""
    with suppress(OSError):
        return [(mapping.start, mapping.end) for mapping in procfs.mappings(pid)]
    return []


def _area_of(areas: list[tuple[int, int]], address: int) -> tuple[int, int] | None:
    index = bisect_right(areas, (address, 1 << 64)) - 1
    return areas[index] if index >= 0 and areas[index][0] <= address < areas[index][1] else None
