"""What an interpreter says of itself: `_Py_DebugOffsets`, at the start of its `_PyRuntime`, from 3.13 on.

It counts for more than our own tables, as far as it can be true: whoever forged it could send readers anywhere.

Source: Include/internal/pycore_runtime.h, pycore_debug_offsets.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from pprofpy.collectors.cpython.versions import FREE_THREADED, Layout, version_of

COOKIE = b"xdebugpy"
TABLE_BYTES = 8 * 128


def debug_offsets(version: tuple[int, int], raw: bytes) -> dict[str, int] | None:
    """What an interpreter says of itself.

    Args:
        version: Its (major, minor).
        raw: The first TABLE_BYTES of its `_PyRuntime`.

    Returns:
        Member -> offset; None where this version has no such table, or there is none.

    Raises:
        UnknownVersionError: We know nothing of this version.
    """
    names = version_of(version).debug_offsets
    if not names or not raw.startswith(COOKIE) or len(raw) < 8 * len(names):
        return None
    return dict(zip(names, struct.unpack_from(f"<{len(names)}Q", raw), strict=True))


def is_free_threaded(version: tuple[int, int], raw: bytes) -> bool:
    """Does a `_PyRuntime` belong to a build without a GIL? Arguments and errors are those of `debug_offsets`."""
    said = debug_offsets(version, raw)
    return said is not None and said["free_threaded"] != 0


_TAKEN: dict[str, Callable[[dict[str, int]], int]] = {
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


class ImplausibleLayoutError(ValueError):
    """What an interpreter says of its own structures cannot be."""


def layout_of(version: tuple[int, int], raw: bytes) -> Layout:
    """The layout of a version, refined by what the interpreter says of itself.

    Args:
        version: (major, minor).
        raw: The first TABLE_BYTES of its `_PyRuntime`.

    Raises:
        UnknownVersionError: We know nothing of this version.
        ImplausibleLayoutError: It should say something of itself, and does not, or that makes no sense.
    """
    known = version_of(version)
    if not known.debug_offsets:
        return known.layout
    said = debug_offsets(version, raw)
    if said is None or said["version"] >> 16 != version[0] << 8 | version[1]:
        raise ImplausibleLayoutError("it does not describe its structures as this version does")
    layout = replace(known.layout, **FREE_THREADED) if said["free_threaded"] else known.layout
    layout = replace(layout, **{name: take(said) for name, take in _TAKEN.items()})
    if wrong := _implausible_members(layout):
        raise ImplausibleLayoutError(f"it says that {wrong[0]} is where it cannot be")
    return layout


def _implausible_members(layout: Layout) -> list[str]:
    """Those that do not lie within their structure, or not where the processor's numbers of their size lie."""
    found = []
    for name in _TAKEN:
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
