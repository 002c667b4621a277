"""Why threads wait, in words: by their system call, and by what it is made on.

The kernel's side (`reasons.h`) judges each wait as it begins. A wait that had begun before the recording is judged
here, by the same table, from what /proc says of the thread.
"""

from __future__ import annotations

import stat
from functools import cache

import numpy as np

from pprofpy.arch import here
from pprofpy.collectors.kernel.names import FD_MEMBERS
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.types import struct_offsets
from pprofpy.events.syscalls import SYSCALLS, Syscall
from pprofpy.target import mounts
from pprofpy.target.procfs import Process, SystemCall

REASONS = (
    "other", "run queue", "lock", "GIL", "futex", "sleep", "poll", "socket", "pipe", "file", "disk", "device", "event",
    "process", "signal", "memory", "page fault", "stopped", "kernel",
)  # fmt: skip
"""By the number that reasons.h gives them."""

RUN_QUEUE = REASONS.index("run queue")

_BY_FD, _BY_FD_COUNT_FIRST, _BY_FD_COUNT_SECOND = range(len(REASONS), len(REASONS) + 3)
_CALLS = 512

_WORDS = {
    "futex": "futex futex_wait futex_waitv",
    "sleep": "nanosleep clock_nanosleep",
    "poll": "epoll_wait epoll_pwait epoll_pwait2 io_getevents io_pgetevents io_uring_enter",
    "socket": "connect accept accept4 sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown",
    "process": "wait4 waitid clone clone3 fork vfork execve execveat ptrace",
    "signal": "pause rt_sigtimedwait rt_sigsuspend",
    "memory": "mmap munmap mprotect mremap madvise brk mlock munlock mlockall mlock2 process_madvise membarrier",
    "disk": "sync syncfs fsync fdatasync msync sync_file_range",
    "event": "semop semtimedop msgsnd msgrcv mq_timedsend mq_timedreceive",
}
"""Reason -> the system calls that can wait for nothing else. Of the others, those on a descriptor wait for what it
stands for, those on a path for a file."""

_BY_COUNT = {"select": _BY_FD_COUNT_FIRST, "pselect6": _BY_FD_COUNT_FIRST} | {
    "poll": _BY_FD_COUNT_SECOND,
    "ppoll": _BY_FD_COUNT_SECOND,
}
_KINDS = {
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "disk",
}
_GIL_BYTES_BUT_MUTEXES = 128
"""Of the lock's structure, see probes/gil_layout.h; it has two mutexes."""


@cache
def reason_constants() -> dict[str, int]:
    """What reasons.h must know of the running kernel.

    Raises:
        NotPossibleError: This kernel does not tell.
    """
    members = (
        FD_MEMBERS
        | here().task_members
        | {
            "TASK_FLAGS": "task_struct.flags",
            "INODE_MODE": "inode.i_mode",
            "INODE_SUPERBLOCK": "inode.i_sb",
            "SUPERBLOCK_MAGIC": "super_block.s_magic",
        }
    )
    return struct_offsets(members, "its tasks and files are not as pprofpy knows them")


def write_reason_table(program: Program) -> None:
    """Fill in the kernel's table of system calls."""
    table = program.table("wait_calls", np.dtype("u4"), np.dtype("u1"))
    for number, reason in _reasons().items():
        table.put(number, reason)


def reason_of(call: SystemCall, pid: Process, tid: int, state: str, gil: int, *, runs_python: bool) -> int:
    """Why a thread is blocked: an index into REASONS.

    Args:
        call: What it is blocked in.
        pid, tid: The thread; tid 0 is the main one.
        state: Its state, as the kernel abbreviates it.
        gil: The address of its interpreter lock; 0 if there is none.
        runs_python: It has Python frames.
    """
    if state in "Tt":
        return REASONS.index("stopped")
    reason = _reason_of_call(call, pid, tid, gil, runs_python=runs_python)
    return REASONS.index("disk" if reason == "file" and state == "D" else reason)


def _reason_of_call(call: SystemCall, pid: Process, tid: int, gil: int, *, runs_python: bool) -> str:
    if not 0 <= call.number < _CALLS:
        return "page fault"
    known, (first, second, *_) = _reasons().get(call.number, 0), call.arguments
    if known == _BY_FD:
        return _reason_of_file(pid, tid, first & 0xFFFFFFFF)
    if known in (_BY_FD_COUNT_FIRST, _BY_FD_COUNT_SECOND):
        count = first if known == _BY_FD_COUNT_FIRST else second
        return "poll" if count & 0xFFFFFFFF else "sleep"
    if REASONS[known] == "futex":
        gil_bytes = _GIL_BYTES_BUT_MUTEXES + 2 * here().mutex_bytes
        return "GIL" if gil and 0 <= first - gil < gil_bytes else "lock" if runs_python else "futex"
    return REASONS[known]


def _reason_of_file(pid: Process, tid: int, number: int) -> str:
    try:
        path, status = mounts.descriptor(pid, number, tid)
    except mounts.ServedError:
        return "file"
    except OSError:
        return "other"
    return "event" if path.startswith(b"anon_inode:") else _KINDS.get(stat.S_IFMT(status.st_mode), "file")


@cache
def _reasons() -> dict[int, int]:
    """Number of a system call -> its reason."""
    by_name = {name: REASONS.index(reason) for reason, names in _WORDS.items() for name in names.split()} | _BY_COUNT
    found = {number: by_name.get(call.name, _by_arguments(call)) for number, call in SYSCALLS.items()}
    return {number: reason for number, reason in found.items() if reason and number < _CALLS}


def _by_arguments(call: Syscall) -> int:
    if call.string_mask:  # a path, be it in the folder of a descriptor
        return REASONS.index("file")
    return _BY_FD if call.begins_with_fd else 0
