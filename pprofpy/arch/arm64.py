"""arm64: what looking at recordings needs. Recorders are refused, see `pprofpy.arch.require`.

Source: include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

MACHINE = "aarch64"

_SYSTEM_CALLS = {"setgroups": 159}


def system_call_number(name: str) -> int | None:
    """The number of a system call; None if it is not known here."""
    return _SYSTEM_CALLS.get(name)
