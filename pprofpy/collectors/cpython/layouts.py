"""Where the members of CPython's structures lie: one Layout per version, as data.

From 3.13 on the interpreter itself says most of it (`_Py_DebugOffsets`, at the start of `_PyRuntime`).

Source: `offsetof` with the headers of each version (tests/unit/test_cpython_layouts.py does it again); for 3.13 and
later Include/internal/pycore_runtime.h and pycore_debug_offsets.h. Offsets are those of 64-bit builds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

NO_CFRAME = 0xFFFF
"""As `cframe_frame`: a thread's state leads to its frame directly."""

NONE = 127
"""As an offset in a frame: there is no such member. The kernel reads a 0 there."""

STATUS_BOUND = 8
"""In what `thread_status` leads to: the thread was in this state last (`bound_gilstate`)."""

DEBUG_OFFSETS_COOKIE = b"xdebugpy"
DEBUG_OFFSETS_BYTES = 8 * 96


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets in bytes. The names are those of `struct python_target` in probes/python.h.

    Attributes:
        interpreters_head: In _PyRuntimeState.
        runtime_current: In _PyRuntimeState, the PyThreadState that has the GIL; 0 where that is not said.
        interp_next, interp_threads, interp_modules: In PyInterpreterState.
        interp_gil: In PyInterpreterState, a pointer to the GIL; 0 where the runtime holds the only one.
        runtime_gil: In _PyRuntimeState, the GIL itself; 0 where each interpreter points to one.
        gil_holder, gil_locked: In the GIL.
        thread_next, thread_interp, thread_id, thread_frame: In PyThreadState.
        thread_cframe: In PyThreadState, leads to a structure on the C stack while Python runs; 0 where there is none.
        thread_status: In PyThreadState, marks the state that its thread was in last; 0 where nothing does.
        cframe_frame, cframe_previous: In the _PyCFrame that `thread_frame` points to; NO_CFRAME where there is none.
        frame_bytes: How much of a frame to read.
        frame_previous, frame_code, frame_instruction: In a frame.
        frame_owner: In a frame; from 3 on it stands for a call from C. NONE where there is none.
        frame_entry: In a frame of 3.11: is it the first of a call from C?
        frame_generator: How far before a generator's frame `gi_frame_state` lies.
        code_instructions: In a code object, the first instruction.
        instruction_is_address: Does a frame hold the address of its instruction (1) or its number (0)?
        instruction_left, instruction_right: Shifts that make a 32-bit number of the latter, units of the former.
        code_bytes: How much of a code object to read.
        code_first_line, code_version, code_file, code_name, code_table: In a code object; 0 where there is none.
        object_type: In every object.
        object_length: In str and bytes.
        string_state: In str; `string_kind_shift` is the first bit of its kind.
        string_ascii, string_wide: Where the text of a str begins.
        bytes_data: Where the content of bytes begins.
    """

    interpreters_head: int
    runtime_current: int
    interp_next: int
    interp_threads: int
    interp_modules: int
    interp_gil: int
    runtime_gil: int
    gil_holder: int
    gil_locked: int
    thread_next: int
    thread_interp: int
    thread_id: int
    thread_frame: int
    thread_cframe: int
    thread_status: int
    cframe_frame: int
    cframe_previous: int
    frame_bytes: int
    frame_previous: int
    frame_code: int
    frame_instruction: int
    frame_owner: int
    frame_entry: int
    frame_generator: int
    code_instructions: int
    instruction_is_address: int
    instruction_left: int
    instruction_right: int
    code_bytes: int
    code_first_line: int
    code_version: int
    code_file: int
    code_name: int
    code_table: int
    object_type: int = 8
    object_length: int = 16
    string_state: int = 32
    string_kind_shift: int = 2
    string_ascii: int = 48
    string_wide: int = 72
    bytes_data: int = 32


_3_8 = Layout(
    interpreters_head=32,
    runtime_current=1368,
    interp_next=0,
    interp_threads=8,
    interp_modules=56,
    interp_gil=0,
    runtime_gil=1152,
    gil_holder=8,
    gil_locked=16,
    thread_next=8,
    thread_interp=16,
    thread_id=176,
    thread_frame=24,
    thread_cframe=0,
    thread_status=0,
    cframe_frame=NO_CFRAME,
    cframe_previous=0,
    frame_bytes=112,
    frame_previous=24,
    frame_code=32,
    frame_instruction=104,
    frame_owner=NONE,
    frame_entry=NONE,
    frame_generator=0,
    code_instructions=0,
    instruction_is_address=0,
    instruction_left=32,
    instruction_right=32,
    code_bytes=128,
    code_first_line=40,
    code_version=0,
    code_file=104,
    code_name=112,
    code_table=120,
)
_3_9 = replace(_3_8, runtime_current=568, runtime_gil=352, interp_modules=856)
_3_10 = replace(_3_9, thread_cframe=48, frame_instruction=96)
_3_11 = replace(
    _3_10,
    interpreters_head=40,
    runtime_current=576,
    interp_threads=16,
    interp_modules=888,
    runtime_gil=360,
    thread_id=152,
    thread_frame=56,
    thread_cframe=56,
    cframe_frame=8,
    cframe_previous=16,
    frame_bytes=72,
    frame_previous=48,
    frame_code=32,
    frame_instruction=56,
    frame_owner=69,
    frame_entry=68,
    frame_generator=5,
    code_instructions=184,
    instruction_is_address=1,
    instruction_left=0,
    instruction_right=1,
    code_bytes=144,
    code_first_line=72,
    code_file=112,
    code_name=128,
    code_table=136,
)
_3_12 = replace(
    _3_11,
    runtime_current=0,
    interp_threads=72,
    interp_modules=944,
    interp_gil=384,
    runtime_gil=0,
    thread_id=136,
    cframe_frame=0,
    cframe_previous=8,
    frame_previous=8,
    frame_code=0,
    frame_owner=70,
    frame_entry=NONE,
    code_instructions=192,
    code_first_line=68,
    code_version=92,
    string_ascii=40,
    string_wide=56,
)
_3_13 = replace(
    _3_12,
    interpreters_head=632,
    interp_next=7264,
    interp_threads=7344,
    interp_modules=7656,
    interp_gil=16,
    thread_id=152,
    thread_frame=72,
    thread_cframe=0,
    thread_status=32,
    cframe_frame=NO_CFRAME,
    code_instructions=200,
)
_3_14 = replace(
    _3_13,
    interpreters_head=808,
    interp_next=7272,
    interp_modules=7688,
    frame_bytes=80,
    frame_owner=74,
    code_instructions=208,
)

LAYOUTS = {
    (3, 8): _3_8,
    (3, 9): _3_9,
    (3, 10): _3_10,
    (3, 11): _3_11,
    (3, 12): _3_12,
    (3, 13): _3_13,
    (3, 14): _3_14,
}
"""(major, minor) -> layout, of builds with a GIL."""

_HEAD = ("cookie", "version", "free_threaded")
_RUNTIME = ("runtime.size", "runtime.finalizing", "runtime.interpreters_head")
_INTERP = (
    "interp.size", "interp.id", "interp.next", "interp.threads_head",
    "interp.gc", "interp.imports_modules", "interp.sysdict", "interp.builtins", "interp.ceval_gil",
    "interp.gil_runtime_state", "interp.gil_enabled", "interp.gil_locked", "interp.gil_holder",
)  # fmt: skip
_THREAD = (
    "thread.size", "thread.prev", "thread.next", "thread.interp", "thread.current_frame", "thread.thread_id",
    "thread.native_thread_id", "thread.datastack_chunk", "thread.status",
)  # fmt: skip
_FRAME = ("frame.size", "frame.previous", "frame.executable", "frame.instr_ptr", "frame.localsplus", "frame.owner")
_CODE = (
    "code.size", "code.filename", "code.name", "code.qualname", "code.linetable", "code.firstlineno",
    "code.argcount", "code.localsplusnames", "code.localspluskinds", "code.co_code_adaptive",
)  # fmt: skip
_INTERP_3_14 = (
    *_INTERP[:4], "interp.threads_main", *_INTERP[4:], "interp.code_object_generation", "interp.tlbc_generation",
)  # fmt: skip
_FRAME_3_14 = (*_FRAME, "frame.stackpointer", "frame.tlbc_index")
_DEBUG_OFFSETS = {
    (3, 13): (*_HEAD, *_RUNTIME, *_INTERP, *_THREAD, *_FRAME, *_CODE),
    (3, 14): (*_HEAD, *_RUNTIME, *_INTERP_3_14, *_THREAD, *_FRAME_3_14, *_CODE),
}
"""The order of _Py_DebugOffsets' members in memory, up to the last that we need: each is 8 bytes."""


def debug_offsets(version: tuple[int, int], raw: bytes) -> dict[str, int] | None:
    """What an interpreter says of itself.

    Args:
        version: Its (major, minor).
        raw: The first DEBUG_OFFSETS_BYTES of its `_PyRuntime`.

    Returns:
        Member -> offset; None where this version's order is not known or there is no such table.
    """
    names = _DEBUG_OFFSETS.get(version)
    if names is None or not raw.startswith(DEBUG_OFFSETS_COOKIE) or len(raw) < 8 * len(names):
        return None
    return dict(zip(names, struct.unpack_from(f"<{len(names)}Q", raw), strict=True))


def is_free_threaded(raw: bytes) -> bool:
    """Does a `_PyRuntime` (3.13 or later) belong to a build without a GIL?"""
    return raw.startswith(DEBUG_OFFSETS_COOKIE) and struct.unpack_from("<Q", raw, 16)[0] != 0


_TAKEN_FROM_DEBUG_OFFSETS: dict[str, Callable[[dict[str, int]], int]] = {
    "interpreters_head": lambda said: said["runtime.interpreters_head"],
    "interp_next": lambda said: said["interp.next"],
    "interp_threads": lambda said: said["interp.threads_head"],
    "interp_modules": lambda said: said["interp.imports_modules"],
    "interp_gil": lambda said: said["interp.ceval_gil"],
    "gil_holder": lambda said: said["interp.gil_holder"] - said["interp.gil_runtime_state"],
    "gil_locked": lambda said: said["interp.gil_locked"] - said["interp.gil_runtime_state"],
    "thread_next": lambda said: said["thread.next"],
    "thread_interp": lambda said: said["thread.interp"],
    "thread_frame": lambda said: said["thread.current_frame"],
    "thread_id": lambda said: said["thread.thread_id"],
    "thread_status": lambda said: said["thread.status"],
    "frame_previous": lambda said: said["frame.previous"],
    "frame_code": lambda said: said["frame.executable"],
    "frame_instruction": lambda said: said["frame.instr_ptr"],
    "frame_owner": lambda said: said["frame.owner"],
    "code_file": lambda said: said["code.filename"],
    "code_name": lambda said: said["code.qualname"],
    "code_table": lambda said: said["code.linetable"],
    "code_first_line": lambda said: said["code.firstlineno"],
    "code_instructions": lambda said: said["code.co_code_adaptive"],
}


_ROOM_FREE_THREADED = {"code_bytes": 256, "frame_bytes": 128}
"""Objects of free-threaded builds have a larger head: what comes behind it lies further on."""


class ImplausibleLayoutError(ValueError):
    """What an interpreter says of its own structures cannot be."""


def layout_of(version: tuple[int, int], raw: bytes) -> Layout | None:
    """The layout of a version, refined by what the interpreter says of itself; None for an unknown version.

    Args:
        version: (major, minor).
        raw: The first DEBUG_OFFSETS_BYTES of its `_PyRuntime`.

    Raises:
        ImplausibleLayoutError: It should say something of itself, and does not, or that makes no sense.
    """
    layout = LAYOUTS.get(version)
    if layout is None or version not in _DEBUG_OFFSETS:
        return layout
    said = debug_offsets(version, raw)
    if said is None or said["version"] >> 16 != version[0] << 8 | version[1]:
        raise ImplausibleLayoutError("it does not describe its structures as this version does")
    if is_free_threaded(raw):
        layout = replace(layout, **_ROOM_FREE_THREADED)
    layout = replace(layout, **{name: take(said) for name, take in _TAKEN_FROM_DEBUG_OFFSETS.items()})
    if wrong := _implausible_members(layout):
        raise ImplausibleLayoutError(f"it says that {wrong[0]} is where it cannot be")
    return layout


def _implausible_members(layout: Layout) -> list[str]:
    """Those that do not lie within their structure, or not where the processor's numbers of their size lie."""
    found = []
    for name in _TAKEN_FROM_DEBUG_OFFSETS:
        size = _SMALL_MEMBERS.get(name, 8)
        room = {"frame": layout.frame_bytes, "code": layout.code_bytes}.get(name.partition("_")[0], _MOST_BYTES)
        offset = getattr(layout, name)
        if not 0 <= offset <= (_MOST_BYTES if name == "code_instructions" else room) - size or offset % size:
            found.append(name)
    return found


_MOST_BYTES = 32 << 10
"""So large structures are at most, as far as we know their members; the kernel's programs have 16 bits for offsets."""

_SMALL_MEMBERS = {"gil_locked": 4, "thread_status": 4, "frame_owner": 1, "code_first_line": 4}
"""How many bytes those members have that are no pointers."""
