"""What an interpreter says of itself: `_Py_DebugOffsets`, at the start of its `_PyRuntime`, from 3.13 on.

It counts for more than our own tables, as far as it can be true: whoever forged it could send readers anywhere. What
differs from ours is proved by a walk (`proof`) before it is used.

Source: Include/internal/pycore_runtime.h, pycore_debug_offsets.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace

from pprofpy.collectors.cpython.versions import Layout, Version, version_like

COOKIE = b"xdebugpy"
TABLE_BYTES = 8 * 128


def _named(**groups: str) -> tuple[str, ...]:
    """Members in the order of the table, `group.member`."""
    return tuple(f"{group}.{member}" for group, members in groups.items() for member in members.split())


_HEAD = ("cookie", "version", "free_threaded")
_RUNTIME = "size finalizing interpreters_head"
_THREAD = "size prev next interp current_frame thread_id native_thread_id datastack_chunk status"
_FRAME = "size previous executable instr_ptr localsplus owner"
_CODE = "size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds co_code_adaptive"
_PLAIN = _named(float="size ob_fval", long="size lv_tag ob_digit", bytes="size ob_size ob_sval")
_ITEMS = "size ob_item ob_size"

_SAID_3_13 = (
    *_HEAD,
    *_named(
        runtime=_RUNTIME,
        interp="size id next threads_head gc imports_modules sysdict builtins ceval_gil gil_runtime_state gil_enabled "
        "gil_locked gil_holder",
        thread=_THREAD,
        frame=_FRAME,
        code=_CODE,
        object="size ob_type",
        type="size tp_name tp_repr tp_flags",
        tuple=_ITEMS,
        list=_ITEMS,
        dict="size ma_keys ma_values",
    ),
    *_PLAIN,
    *_named(str="size state length asciiobject_size", gc="size collecting"),
)
_INTERP_3_14 = (
    "size id next threads_head threads_main gc imports_modules sysdict builtins ceval_gil gil_runtime_state "
    "gil_enabled gil_locked gil_holder code_object_generation tlbc_generation"
)
_SAID_3_14 = (
    *_HEAD,
    *_named(
        runtime=_RUNTIME,
        interp=_INTERP_3_14,
        thread=_THREAD,
        frame=f"{_FRAME} stackpointer tlbc_index",
        code=f"{_CODE} co_tlbc",
        object="size ob_type",
        type="size tp_name tp_repr tp_flags",
        tuple=_ITEMS,
        list=_ITEMS,
        set="size used table mask",
        dict="size ma_keys ma_values",
    ),
    *_PLAIN,
    *_named(str="size state length asciiobject_size", gc="size collecting"),
)
_SAID_3_15 = (
    *_HEAD,
    *_named(
        runtime=_RUNTIME,
        interp=_INTERP_3_14,
        thread="size prev next interp current_frame base_frame last_profiled_frame last_profiled_frame_seq thread_id "
        "native_thread_id datastack_chunk status holds_gil gil_requested current_exception exc_state",
        err_stackitem="exc_value",
        frame=f"{_FRAME} stackpointer tlbc_index",
        code=f"{_CODE} co_tlbc",
        object="size ob_type",
        type="size tp_name tp_repr tp_flags tp_basicsize tp_dictoffset",
        heaptype="size ht_cached_keys",
        tuple=_ITEMS,
        list=_ITEMS,
        set="size used table mask",
        dict="size ma_keys ma_values",
    ),
    *_PLAIN,
    *_named(str="size state length asciiobject_size compactunicodeobject_size", gc="size collecting"),
)
MEMBERS: Mapping[tuple[int, int], tuple[str, ...]] = {(3, 13): _SAID_3_13, (3, 14): _SAID_3_14, (3, 15): _SAID_3_15}
"""(major, minor) -> the members of its table in order, 8 bytes each, up to the last that is needed. Each minor version
has another order; releases of one have the same."""


def debug_offsets(number: tuple[int, int], raw: bytes) -> dict[str, int] | None:
    """What an interpreter says of itself.

    Args:
        number: Its (major, minor). One that is newer than all of MEMBERS is read like the newest.
        raw: The first TABLE_BYTES of its `_PyRuntime`.

    Returns:
        Member -> offset; None where this version has no such table, or there is none.
    """
    names = MEMBERS.get(min(number, max(MEMBERS)))
    if not names or not raw.startswith(COOKIE) or len(raw) < 8 * len(names):
        return None
    return dict(zip(names, struct.unpack_from(f"<{len(names)}Q", raw), strict=True))


def is_free_threaded(number: tuple[int, int], raw: bytes) -> bool:
    """Does a `_PyRuntime` belong to a build without a GIL? Arguments are those of `debug_offsets`."""
    said = debug_offsets(number, raw)
    return said is not None and said["free_threaded"] != 0


_TAKEN: dict[str, Callable[[dict[str, int]], int]] = {
    "interpreters_head": lambda said: said["runtime.interpreters_head"],
    "interp_next": lambda said: said["interp.next"],
    "interp_threads": lambda said: said["interp.threads_head"],
    "interp_modules": lambda said: said["interp.imports_modules"],
    "interp_gil": lambda said: said["interp.ceval_gil"],
    "gil_enabled": lambda said: max(said["interp.gil_enabled"] - said["interp.gil_runtime_state"], 0),
    "gil_holder": lambda said: said["interp.gil_holder"] - said["interp.gil_runtime_state"],
    "gil_locked": lambda said: said["interp.gil_locked"] - said["interp.gil_runtime_state"],
    "thread_next": lambda said: said["thread.next"],
    "thread_interp": lambda said: said["thread.interp"],
    "thread_frame": lambda said: said["thread.current_frame"],
    "thread_id": lambda said: said["thread.thread_id"],
    "thread_status": lambda said: said["thread.status"],
    "frame_bytes": lambda said: said["frame.localsplus"],
    "frame_previous": lambda said: said["frame.previous"],
    "frame_code": lambda said: said["frame.executable"],
    "frame_instruction": lambda said: said["frame.instr_ptr"],
    "frame_owner": lambda said: said["frame.owner"],
    "code_bytes": lambda said: 8 + max(said["code.filename"], said["code.qualname"], said["code.linetable"]),
    "code_file": lambda said: said["code.filename"],
    "code_name": lambda said: said["code.qualname"],
    "code_table": lambda said: said["code.linetable"],
    "code_first_line": lambda said: said["code.firstlineno"],
    "code_version": lambda said: said["code.firstlineno"] + 24,  # it is not said, but lies there in all versions
    "gc_collecting": lambda said: said["interp.gc"] + said["gc.collecting"],
    "code_flags": lambda said: said["code.argcount"] - 4,  # nor is this; it lies before it
    "code_instructions": lambda said: said["code.co_code_adaptive"],
    "object_type": lambda said: said["object.ob_type"],
    "object_length": lambda said: said["str.length"],
    "string_state": lambda said: said["str.state"],
    "string_ascii": lambda said: said["str.asciiobject_size"],
    "string_wide": lambda said: said.get("str.compactunicodeobject_size", said["str.asciiobject_size"] + 16),
    "bytes_data": lambda said: said["bytes.ob_sval"],
}


class ImplausibleLayoutError(ValueError):
    """What an interpreter says of its own structures cannot be."""


def described(number: tuple[int, int], raw: bytes) -> Version:
    """What is to be known of an interpreter: what it says of itself, and what only its version tells.

    Args:
        number: Its (major, minor).
        raw: The first TABLE_BYTES of its `_PyRuntime`.

    Raises:
        UnknownVersionError: We know nothing of this version.
        ImplausibleLayoutError: It should say something of itself, and does not, or that makes no sense.
    """
    known = version_like(number, is_free_threaded=is_free_threaded(number, raw))
    if number < min(MEMBERS):
        return known
    said = debug_offsets(number, raw)
    if said is None or said["version"] >> 16 != number[0] << 8 | number[1]:
        raise ImplausibleLayoutError("it does not describe its structures as this version does")
    layout = replace(known.layout, **{name: take(said) for name, take in _TAKEN.items()})
    if wrong := _implausible_members(layout):
        raise ImplausibleLayoutError(f"it says that {wrong[0]} is where it cannot be")
    if said["free_threaded"]:
        layout = replace(layout, gc_collecting=0)  # of several threads that run, none is known to be the collector
    elif said["gc.collecting"] != GC_COLLECTING.get(number):
        layout = replace(layout, gc_older=0)
    cached_keys = said.get("heaptype.ht_cached_keys", known.objects.cached_keys)
    return replace(known, layout=layout, objects=replace(known.objects, cached_keys=cached_keys))


def _implausible_members(layout: Layout) -> list[str]:
    """Those that do not lie within their structure, or not where the processor's numbers of their size lie."""
    found = []
    for name in _TAKEN:
        size, offset = _SMALL_MEMBERS.get(name, 8), getattr(layout, name)
        kind = name.partition("_")[0]
        room = _ROOM.get(name) or {"frame": layout.frame_bytes, "code": layout.code_bytes}.get(kind, _MOST_BYTES)
        if not 0 <= offset <= room - size or offset % size:
            found.append(name)
    return found


GC_COLLECTING = {(3, 13): 200, (3, 14): 192, (3, 15): 112}
"""Where `collecting` lies in the collector's state in those releases whose generations are as `gc_older` says."""

_MOST_BYTES = 32 << 10
"""So large structures are at most, as far as we know their members; the kernel's programs have 16 bits for offsets."""

_ROOM = {"frame_bytes": 128, "code_bytes": 256, "object_type": 64, "code_instructions": _MOST_BYTES}
"""What the kernel's programs have room for; the instructions lie behind what is read of a code object."""

_SMALL_MEMBERS = {
    "gil_enabled": 4, "gil_locked": 4, "thread_status": 4, "frame_owner": 1, "code_first_line": 4, "code_version": 4,
    "code_flags": 4, "string_state": 4, "gc_collecting": 4,
}  # fmt: skip
"""How many bytes those members have that are no pointers."""
