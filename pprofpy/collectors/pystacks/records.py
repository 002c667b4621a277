"""What the kernel's walk of Python stacks (`python.h`) sends: stacks, code objects, processes that fork or exec."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from pprofpy.arch import here
from pprofpy.collectors.cpython.objects import Code, decode_text
from pprofpy.collectors.cpython.versions import KERNEL_DEFINES
from pprofpy.collectors.kernel.label_options import NO_LABELS, LabelOptions
from pprofpy.collectors.kernel.source import ProbeSource
from pprofpy.collectors.kernel.types import struct_offsets
from pprofpy.collectors.pystacks.labels import LABEL_LAYOUTS
from pprofpy.collectors.pystacks.processes import TARGET

_MAX_FRAMES, _NAME_BYTES, _FILE_BYTES, _TABLE_BYTES = 512, 256, 512, 4096
_FRAME = np.dtype([("code", "u8"), ("instruction", "i4"), ("fingerprint", "u4")])
_STACK = np.dtype(
    [
        ("kind", "u4"),
        ("tgid", "u4"),
        ("id", "u8"),
        ("labels", "u8"),
        ("thread_state", "u8"),
        ("tid", "u4"),
        ("flags", "u4"),
        ("frame_count", "u4"),
        ("frame_first", "u4"),
        ("thread_frames", "u4"),
        ("task_frames", "u4"),
        ("collecting", "u4"),
        ("unused", "u4"),
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
CUT_MARK = "…"
PYTHON_LAYOUTS = {
    "python_target": TARGET,
    "python_frame": _FRAME,
    "python_stack": _STACK,
    "python_code": _CODE,
    "python_process_event": _PROCESS_EVENT,
    **LABEL_LAYOUTS,
}
"""For the ProbeSource of a program that includes python.h."""

KIND_STACK, KIND_CODE, KIND_EXEC, KIND_FORK, KIND_LABELS = 1, 2, 3, 4, 5
"""The first word of a record."""

AWAITED_BY = 1
"""Instead of a code object's address: what follows is the stack of a task that awaits the one before."""

CUT, BROKEN = 1, 2
"""Flags of a stack: deeper than what was walked; the rest could not be read."""

_STACK_HEAD, _CODE_HEAD = struct.Struct("<IIQQQIIIIIIII"), struct.Struct("<IIQQIiIIIIII")
_EVENT = struct.Struct("<IIII")
_FRAME_KEY = struct.Struct("<QiI")


def with_python(source: ProbeSource, **defines: int) -> ProbeSource:
    """The variant of a program that includes python.h."""
    return source.plus(PYTHON_LAYOUTS, **KERNEL_DEFINES, **defines)


def python_constants(labels: LabelOptions = NO_LABELS) -> dict[str, int]:
    """What python.h must know of the running kernel, and which labels are wanted.

    Raises:
        NotPossibleError: This kernel does not tell.
    """
    return _offsets() | labels.constants()


@cache
def _offsets() -> dict[str, int]:
    members = {"TASK_THREAD_POINTER": here().thread_pointer, "SIGNAL_LIVE": "signal_struct.live"}
    return struct_offsets(members, "threads of Python cannot be told apart in it")


class FrameKey(NamedTuple):
    """A frame: its code object's address (0: none of Python's), its instruction, what tells the code from others."""

    code: int
    instruction: int
    fingerprint: int


class StackRecord(NamedTuple):
    """A stack that is new.

    Attributes:
        tgid: Whose.
        stack_id: The kernel's number for it.
        labels: The kernel's number for its labels; 0: it has none.
        thread_state: The address of the thread's state.
        flags: CUT or BROKEN; 0: it is whole.
        collecting: The thread collects garbage: of which generation (1 to 3; 4: unknown); 0: it does not.
        keys: Its frames, leaf-first, packed (`frame_key`): most were met before. Those of tasks that await its task
            are between the task's own and the event loop's.
    """

    tgid: int
    stack_id: int
    labels: int
    thread_state: int
    flags: int
    collecting: int
    keys: list[bytes]


def _awaiting(keys: list[bytes]) -> Iterator[bytes]:
    """The frames of tasks that await one another, leaf-first: the kernel walks each from its first coroutine on."""
    marks = [place for place, key in enumerate(keys) if frame_key(key).code == AWAITED_BY]
    for begin, end in pairwise([*marks, len(keys)]):
        yield keys[begin]
        yield from reversed(keys[begin + 1 : end])


class CodeRecord(NamedTuple):
    """A code object that is new.

    Attributes:
        tgid, address, fingerprint: Which.
        code: What it says; its line table is empty if that was not sent.
        table: The line table's address.
        lacks_table: The line table is too large to be sent.
        is_cut: So is its name, or that of its file; each then ends in CUT_MARK.
    """

    tgid: int
    address: int
    fingerprint: int
    code: Code
    table: int
    lacks_table: bool
    is_cut: bool


def kind_of(record: bytes) -> int:
    """Return the kind of a record (KIND_*)."""
    return int.from_bytes(record[:4], "little")


def process_of(record: bytes) -> int:
    """Return whose record it is."""
    return int.from_bytes(record[4:8], "little")


def frame_key(packed: bytes) -> FrameKey:
    """Read a packed frame."""
    return FrameKey._make(_FRAME_KEY.unpack(packed))


def stack_of(record: bytes) -> StackRecord:
    """Read a record of KIND_STACK."""
    _, tgid, stack_id, labels, thread_state, _, flags, count, first, own, task, collecting, _ = _STACK_HEAD.unpack_from(
        record
    )
    start, size = _STACK_HEAD.size, _FRAME_KEY.size
    keys = [record[start + i * size : start + (i + 1) * size] for i in range(count)]
    if own:
        keys[task:] = [*_awaiting(keys[own:]), *keys[task:own]]
    del keys[:first]
    return StackRecord(tgid, stack_id, labels, thread_state, flags, collecting, keys)


def code_of(record: bytes) -> CodeRecord:
    """Read a record of KIND_CODE."""
    head = _CODE_HEAD.unpack_from(record)
    _, tgid, address, table, fingerprint, first_line, name_bytes, name_width, file_bytes, file_width, table_bytes, _ = (
        head
    )
    name_at = _CODE_HEAD.size
    file_at, table_at = name_at + _NAME_BYTES, name_at + _NAME_BYTES + _FILE_BYTES
    lines = record[table_at : table_at + table_bytes]
    lacks_table = len(lines) < table_bytes
    code = Code(
        name=_text(record[name_at:file_at], name_bytes, name_width),
        filename=_text(record[file_at:table_at], file_bytes, file_width),
        first_line=first_line,
        table=b"" if lacks_table else lines,
    )
    is_cut = name_bytes > _NAME_BYTES or file_bytes > _FILE_BYTES
    return CodeRecord(tgid, address, fingerprint, code, table, lacks_table, is_cut)


def _text(sent: bytes, size: int, width: int) -> str:
    """A str of so many bytes, of which there may be fewer."""
    return decode_text(sent[:size], width) + CUT_MARK * (size > len(sent))


def process_event_of(record: bytes) -> tuple[int, int]:
    """Read a record of KIND_EXEC or KIND_FORK; return the process, and its parent."""
    _, tgid, parent, _ = _EVENT.unpack(record)
    return tgid, parent
