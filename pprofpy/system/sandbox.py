"""A seccomp filter for a process of ours that works on what others have made: it computes, reads, writes and ends.

Source: man 2 seccomp; <linux/seccomp.h>, <linux/filter.h> (struct sock_filter), <linux/bpf_common.h>.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from pprofpy.arch import is_known, x86_64

COMPUTING = (
    "read", "write", "brk", "mmap", "munmap", "mprotect", "mremap", "madvise", "futex", "rt_sigreturn", "getrandom",
    "exit", "exit_group",
)  # fmt: skip
"""Memory, streams that are open, and the end. Nothing opens, connects, starts or traces anything."""

_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_INSTRUCTION = struct.Struct("<HBBI")


def seccomp_filter(allowed: Iterable[str] = COMPUTING) -> bytes:
    """A classic BPF program that lets a process make these system calls; all others fail with EPERM.

    A system call of another machine's (of a 32-bit program's), with other numbers, ends the process. Empty where the
    numbers are not known.
    """
    if not is_known():
        return b""
    numbers = [number for name in allowed if (number := x86_64.system_call_number(name)) is not None]
    checks = [(_JUMP_IF_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_IF_EQUAL, 1, 0, x86_64.AUDIT_ARCHITECTURE),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *checks,
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(_INSTRUCTION.pack(*one) for one in program)
