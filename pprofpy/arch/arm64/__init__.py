"""arm64: numbers, names and places, as data. Processes of it are not entered: see `pprofpy.arch.require_attaching`.

Source: the kernel's arch/arm64/include (asm/ptrace.h: struct pt_regs, whose first words are struct user_pt_regs;
asm/processor.h; asm/thread_info.h; uapi/asm/fcntl.h) and include/uapi/asm-generic/mman.h; DWARF for the Arm 64-bit
Architecture (AADWARF64, 4.1); glibc's sysdeps/nptl/bits/pthreadtypes.h for aarch64; man 5 elf.
"""

from __future__ import annotations

from pprofpy.arch.arm64.code import keeps_caller
from pprofpy.arch.arm64.glibc import thread_pointer_of
from pprofpy.arch.arm64.system_calls import TABLE
from pprofpy.arch.machine import Machine

_OPEN_FLAGS = (
    "0x404000 O_TMPFILE 0x101000 O_SYNC 1 O_WRONLY 2 O_RDWR 0x40 O_CREAT 0x80 O_EXCL 0x100 O_NOCTTY "
    "0x200 O_TRUNC 0x400 O_APPEND 0x800 O_NONBLOCK 0x1000 O_DSYNC 0x2000 O_ASYNC 0x4000 O_DIRECTORY 0x8000 O_NOFOLLOW "
    "0x10000 O_DIRECT 0x20000 O_LARGEFILE 0x40000 O_NOATIME 0x80000 O_CLOEXEC 0x200000 O_PATH"
)
_MMAP_FLAGS = (
    "3 MAP_SHARED_VALIDATE 1 MAP_SHARED 2 MAP_PRIVATE 0x10 MAP_FIXED 0x20 MAP_ANONYMOUS "
    "0x100 MAP_GROWSDOWN 0x800 MAP_DENYWRITE 0x1000 MAP_EXECUTABLE 0x2000 MAP_LOCKED 0x4000 MAP_NORESERVE "
    "0x8000 MAP_POPULATE 0x10000 MAP_NONBLOCK 0x20000 MAP_STACK 0x40000 MAP_HUGETLB 0x80000 MAP_SYNC "
    "0x100000 MAP_FIXED_NOREPLACE"
)

_STACK_POINTER, _PROGRAM_COUNTER = 31, 32

MACHINE = Machine(
    name="aarch64",
    title="arm64",
    title_32_bit="arm",
    elf_machine=183,
    audit_architecture=0xC00000B7,
    system_calls=TABLE,
    stack_pointer=_STACK_POINTER,
    program_counter=_PROGRAM_COUNTER,
    return_address=30,  # the link register
    pt_regs_of_unwinding=tuple(range(_PROGRAM_COUNTER + 1)),  # x0 to x30, sp, pc
    pt_regs_count=34,  # and pstate
    pt_regs_pointers=31,
    pt_regs_call=35,  # syscallno: 32 bits, behind orig_x0
    pt_regs_arguments=(0, 1, 2, 3, 4, 5),
    pt_regs_mode=33,  # pstate: the exception level
    mode_mask=0xF,
    user_mode=0,
    mode_32_bit=0x10,
    code_address_bits=48,  # pointer authentication keeps its code above them
    thread_pointer="task_struct.thread.uw.tp_value",
    thread_pointer_of=thread_pointer_of,
    glibc_keys_at=0x110,
    mutex_bytes=48,
    keeps_caller=keeps_caller,
    preempt_count="task_struct.thread_info.preempt.count",
    flags={"open_arm64": _OPEN_FLAGS, "mmap_arm64": _MMAP_FLAGS},
)
