"""x86-64: numbers, names and places, as data. The registers of a thread are in `registers`, its code in `machine_code`.

Source: System V ABI for AMD64 (registers in unwinding tables: table 3.36; thread-local storage: %fs:0); the kernel's
arch/x86/include/asm; man 5 elf.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from pprofpy.arch.x86_64.system_calls import TABLE

MACHINE = "x86_64"
ELF_MACHINE = 62
AUDIT_ARCHITECTURE = 0xC000003E
"""What seccomp's filters are told of the machine (AUDIT_ARCH_X86_64)."""

STACK_POINTER, RETURN_ADDRESS = 7, 16
"""Numbers of registers in unwinding tables. Those up to the latter are followed."""

PT_REGS_OF_UNWINDING = (10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16)
"""Where unwinding tables' registers lie in struct pt_regs: rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15, rip."""

PT_REGS_COUNT = 21
RED_ZONE_BYTES = 128
"""In use below the stack pointer."""

THREAD_POINTER = "task_struct.thread.fsbase"
"""Where the kernel keeps what `pthread_self` returns in a thread."""

SELF_POINTER_AT = 0
"""The C library's record of a thread, to which the thread pointer points, has its own address there.

Source: glibc's tcbhead_t, musl's struct pthread.
"""

GLIBC_KEYS_AT = 0x310
"""In glibc's record: the values of a thread's first 32 keys (`specific_1stblock` in nptl/descr.h)."""

COMPAT_STATUS = "task_struct.thread_info.status"
"""Tells system calls of 32-bit programs (TS_COMPAT)."""

PREEMPT_COUNT = (("__preempt_count", ""), ("pcpu_hot", "preempt_count"))
"""A CPU's preempt_count: a per-CPU variable and a member of it; the second from Linux 6.2 to 6.14.

Source: arch/x86/include/asm/preempt.h.
"""

THREAD_FEATURES = b"x86_Thread_features"
"""The line of /proc/PID/status with what the processor does for a thread."""

_CALL, _ARGUMENTS = 15, (14, 13, 12, 7, 9, 8)
"""Where struct pt_regs has the number of a system call (orig_rax) and its arguments: rdi, rsi, rdx, r10, r8, r9."""

OPEN_FLAGS = (
    "0x410000 O_TMPFILE 0x101000 O_SYNC 1 O_WRONLY 2 O_RDWR 0x40 O_CREAT 0x80 O_EXCL 0x100 O_NOCTTY "
    "0x200 O_TRUNC 0x400 O_APPEND 0x800 O_NONBLOCK 0x1000 O_DSYNC 0x2000 O_ASYNC 0x4000 O_DIRECT 0x8000 O_LARGEFILE "
    "0x10000 O_DIRECTORY 0x20000 O_NOFOLLOW 0x40000 O_NOATIME 0x80000 O_CLOEXEC 0x200000 O_PATH"
)
"""Bits and their names. O_SYNC and O_TMPFILE hold the bits of O_DSYNC and O_DIRECTORY: larger masks first."""

MMAP_FLAGS = (
    "3 MAP_SHARED_VALIDATE 1 MAP_SHARED 2 MAP_PRIVATE 0x10 MAP_FIXED 0x20 MAP_ANONYMOUS 0x40 MAP_32BIT "
    "0x100 MAP_GROWSDOWN 0x800 MAP_DENYWRITE 0x1000 MAP_EXECUTABLE 0x2000 MAP_LOCKED 0x4000 MAP_NORESERVE "
    "0x8000 MAP_POPULATE 0x10000 MAP_NONBLOCK 0x20000 MAP_STACK 0x40000 MAP_HUGETLB 0x80000 MAP_SYNC "
    "0x100000 MAP_FIXED_NOREPLACE"
)
"""Bits and their names."""


@cache
def _numbers() -> dict[str, int]:
    return {name: int(number) for number, name, *_ in map(str.split, TABLE.splitlines())}


def kernel_defines() -> Mapping[str, int]:
    """For the programs in the kernel: places are words of struct pt_regs, whose first 15 may hold pointers (to rdi)."""
    return {
        "REGISTERS": PT_REGS_COUNT,
        "REGISTERS_WITH_POINTERS": 15,
        "REGISTER_STACK_POINTER": PT_REGS_OF_UNWINDING[STACK_POINTER],
        "REGISTER_CALL": _CALL,
        **{f"REGISTER_ARGUMENT_{number}": place for number, place in enumerate(_ARGUMENTS)},
        "FIRST_ARGUMENT_REGISTER": min(_ARGUMENTS),
        "ARGUMENT_REGISTERS": max(_ARGUMENTS) - min(_ARGUMENTS) + 1,
        "RED_ZONE_BYTES": RED_ZONE_BYTES,
        **{f"SYSCALL_{name.upper()}": _numbers()[name] for name in ("exit", "exit_group", "futex")},
    }


def system_call_number(name: str) -> int | None:
    """The number of a system call; None if there is none of this name."""
    return _numbers().get(name)
