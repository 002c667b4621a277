"""x86-64: numbers, names and places, as data. The registers of a thread are in `registers`, its code in `machine_code`.

Source: System V ABI for AMD64 (registers in unwinding tables: table 3.36; thread-local storage: %fs:0); the kernel's
arch/x86/include/asm (ptrace.h, preempt.h); glibc's nptl/descr.h and bits/pthreadtypes-arch.h; man 5 elf.
"""

from __future__ import annotations

from pprofpy.arch.machine import Machine, Read
from pprofpy.arch.x86_64.system_calls import TABLE

RED_ZONE_BYTES = 128

THREAD_FEATURES = b"x86_Thread_features"
"""The line of /proc/PID/status with what the processor does for a thread."""

_OPEN_FLAGS = (
    "0x410000 O_TMPFILE 0x101000 O_SYNC 1 O_WRONLY 2 O_RDWR 0x40 O_CREAT 0x80 O_EXCL 0x100 O_NOCTTY "
    "0x200 O_TRUNC 0x400 O_APPEND 0x800 O_NONBLOCK 0x1000 O_DSYNC 0x2000 O_ASYNC 0x4000 O_DIRECT 0x8000 O_LARGEFILE "
    "0x10000 O_DIRECTORY 0x20000 O_NOFOLLOW 0x40000 O_NOATIME 0x80000 O_CLOEXEC 0x200000 O_PATH"
)
"""O_SYNC and O_TMPFILE hold the bits of O_DSYNC and O_DIRECTORY."""

_MMAP_FLAGS = (
    "3 MAP_SHARED_VALIDATE 1 MAP_SHARED 2 MAP_PRIVATE 0x10 MAP_FIXED 0x20 MAP_ANONYMOUS 0x40 MAP_32BIT "
    "0x100 MAP_GROWSDOWN 0x800 MAP_DENYWRITE 0x1000 MAP_EXECUTABLE 0x2000 MAP_LOCKED 0x4000 MAP_NORESERVE "
    "0x8000 MAP_POPULATE 0x10000 MAP_NONBLOCK 0x20000 MAP_STACK 0x40000 MAP_HUGETLB 0x80000 MAP_SYNC "
    "0x100000 MAP_FIXED_NOREPLACE"
)


def _thread_pointer_of(ident: int, read: Read) -> int | None:
    """The thread pointer is what `pthread_self` returns: a C library's record of a thread begins with its own address.

    Source: glibc's tcbhead_t, musl's struct pthread.
    """
    return ident if ident > 0 and read(ident, 8) == ident.to_bytes(8, "little") else None


MACHINE = Machine(
    name="x86_64",
    title="x86-64",
    title_32_bit="i386",
    elf_machine=62,
    audit_architecture=0xC000003E,
    system_calls=TABLE,
    stack_pointer=7,
    program_counter=16,
    return_address=16,
    frame_pointer=6,
    # rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, r8 to r15, rip
    pt_regs_of_unwinding=(10, 12, 11, 5, 13, 14, 4, 19, 9, 8, 7, 6, 3, 2, 1, 0, 16),
    pt_regs_count=21,
    pt_regs_pointers=15,  # to rdi
    pt_regs_call=15,  # orig_rax
    pt_regs_arguments=(14, 13, 12, 7, 9, 8),  # rdi, rsi, rdx, r10, r8, r9
    pt_regs_mode=17,  # cs: its privilege level
    mode_mask=3,
    user_mode=3,
    compat_status="task_struct.thread_info.status",
    red_zone_bytes=RED_ZONE_BYTES,
    thread_pointer="task_struct.thread.fsbase",
    thread_pointer_of=_thread_pointer_of,
    glibc_keys_at=0x310,
    mutex_bytes=40,
    cpu_preempt_count=(("__preempt_count", ""), ("pcpu_hot", "preempt_count")),  # the second in Linux 6.2 to 6.14
    flags={"open": _OPEN_FLAGS, "mmap": _MMAP_FLAGS},
)
