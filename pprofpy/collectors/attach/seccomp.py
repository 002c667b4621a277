"""Would a thread's seccomp filters let the attach through? Answered by running them here on the calls that it makes.

A filter may kill the process for a call that it does not expect, so nothing is tried in the target. Filters belong to
threads; a new thread is under those of the one that started it.

Source: seccomp(2); the kernel's classic BPF interpreter (net/core/filter.c) and seccomp_check_filter
(kernel/seccomp.c).
"""

from __future__ import annotations

import errno
import struct
from functools import cache

from pprofpy.arch import here, system_call_number
from pprofpy.collectors.attach.ptrace import GoneError, Tracee, trace
from pprofpy.target import procfs

_ALLOW, _LOG, _ERRNO = 0x7FFF0000, 0x7FFC0000, 0x00050000
_ACTION = 0xFFFF0000
_ALL32, _ALL64 = (1 << 32) - 1, (1 << 64) - 1

_MEMORY, _PRIVATE, _STACK, _THREAD_FLAGS = 3, 0x22, 0x20022, 0x3D0F00
_NEEDED: dict[str, tuple[int, ...]] = {
    "rt_sigprocmask": (2, 0, 0, 8),
    "mmap": (0, 4096, _MEMORY, _PRIVATE, _ALL64, 0),
    "mmap of a stack": (0, 8 << 20, 0, _STACK, _ALL64, 0),
    "mprotect": (0, 8 << 20, _MEMORY),
    "munmap": (0, 4096),
    "brk": (0,),
    "gettid": (),
    "rt_sigpending": (0, 8),
    "tkill": (1, 23),
    "clone": (_THREAD_FLAGS,),
    "nanosleep": (0, 0),
    "futex": (0, 0x189, 0, 0, 0, _ALL32),
    "exit": (0,),
}
"""What machine.S, pthread_create and a thread's end call: name (and what for) -> arguments."""
_WELCOME: dict[str, tuple[int, ...]] = {
    "clone3": (0, 88),
    "rseq": (0, 32, 0),
    "set_robust_list": (0, 24),
    "madvise": (0, 4096, 4),
}
"""The same, where an error would do no harm."""


def objection(tid: int) -> str:
    """Why this thread must not be borrowed, as far as seccomp goes; empty if it may.

    Raises:
        GoneError: It has ended.
        StuckError: It cannot be stopped now.
        OSError: It cannot be traced.
    """
    mode = _mode(tid)
    if mode == 0:
        return ""
    if mode == 1:
        return "it may only read, write and exit (strict mode)"
    try:
        filters = trace(tid, _filters)
    except PermissionError as error:
        if error.errno == errno.EPERM:
            raise
        return "only root can read its filters"
    except OSError:
        return "its filters cannot be read here"
    return verdict(tuple(filters))


def _filters(tracee: Tracee) -> list[bytes]:
    tracee.halt()
    return tracee.filters()


@cache
def verdict(filters: tuple[bytes, ...]) -> str:
    """The first call that the filters do not let through; empty if there is none.

    They are the kernel's own copies: it has seen to it that they end, by jumping forward only, and that there are no
    more than 32,768 instructions. Threads mostly share them.
    """
    programs = [list(struct.iter_unpack("<HBBI", program)) for program in filters]
    for calls, harmless in ((_NEEDED, {_ALLOW, _LOG}), (_WELCOME, {_ALLOW, _LOG, _ERRNO})):
        for name, arguments in calls.items():
            number, padded = system_call_number(name.split()[0]), (*arguments, 0, 0, 0, 0, 0, 0)[:6]
            data = struct.pack("<iIQ6Q", number, here().audit_architecture, 0, *padded)
            for program in programs:
                if _run(program, data) & _ACTION not in harmless:
                    return f"its filters forbid {name}"
    return ""


def _run(program: list[tuple[int, int, int, int]], data: bytes) -> int:
    """What a classic BPF program returns for a struct seccomp_data; KILL (0) for what the kernel would not accept."""
    accumulator = index = at = 0
    memory = [0] * 16
    while at < len(program):
        code, if_true, if_false, constant = program[at]
        at += 1
        operand = index if code & 0x08 else constant
        match code & 0x07:
            case 0x00 | 0x01:  # load A, load X
                value = _loaded(code, constant, data, memory)
                accumulator, index = (accumulator, value) if code & 1 else (value, index)
            case 0x02:
                memory[constant] = accumulator
            case 0x03:
                memory[constant] = index
            case 0x04:
                accumulator = _computed(code & 0xF0, accumulator, operand)
            case 0x05:
                if code & 0xF0 == 0x00:
                    at += constant
                else:
                    at += if_true if _holds(code & 0xF0, accumulator, operand) else if_false
            case 0x06:
                return accumulator if code & 0x18 == 0x10 else constant
            case 0x07:
                accumulator, index = (index, index) if code & 0x80 else (accumulator, accumulator)
    return 0


def _loaded(code: int, constant: int, data: bytes, memory: list[int]) -> int:
    match code & 0xE0:
        case 0x00:
            return constant
        case 0x20:
            return int(struct.unpack_from("<I", data, constant)[0])
        case 0x60:
            return memory[constant]
        case _:  # the length of the data
            return len(data)


def _computed(operation: int, a: int, b: int) -> int:
    match operation:
        case 0x00:
            result = a + b
        case 0x10:
            result = a - b
        case 0x20:
            result = a * b
        case 0x30:
            result = a // b if b else 0
        case 0x40:
            result = a | b
        case 0x50:
            result = a & b
        case 0x60:
            result = a << (b & 31)
        case 0x70:
            result = a >> (b & 31)
        case 0x80:
            result = -a
        case 0x90:
            result = a % b if b else 0
        case _:
            result = a ^ b
    return result & _ALL32


def _holds(condition: int, a: int, b: int) -> bool:
    match condition:
        case 0x10:
            return a == b
        case 0x20:
            return a > b
        case 0x30:
            return a >= b
        case _:
            return bool(a & b)


def _mode(tid: int) -> int:
    try:
        return procfs.status(tid).seccomp
    except (FileNotFoundError, ProcessLookupError):
        raise GoneError from None
