"""What is known of an architecture, as data: a `Machine` each, in `x86_64` and `arm64`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

Read = Callable[[int, int], bytes]
"""Reads a process's memory: (address, size) -> bytes; empty where not all of it is there."""


@dataclass(frozen=True)
class Machine:
    """Numbers, names and places of one architecture.

    Attributes:
        name: As the kernel calls it (uname).
        title: As people do.
        elf_machine: `e_machine` of its programs.
        audit_architecture: What seccomp's filters are told (AUDIT_ARCH_*).
        system_calls: A line for each, see `x86_64.system_calls`.
        stack_pointer, program_counter: Numbers of registers in unwinding tables.
        return_address: The register that unwinding tables give as the caller's next instruction.
        frame_pointer: The register that leads to the caller's one, with the return address behind it, where code keeps
            frame pointers; None where it need not.
        pt_regs_of_unwinding: Where the registers of unwinding tables lie in struct pt_regs, in words, by their numbers.
        pt_regs_count: So many words of it are copied.
        pt_regs_pointers: So many words of it, from the first on, may hold pointers.
        pt_regs_call: The word with the number of the system call, in its lower half; below 0: it is in none.
        pt_regs_arguments: The words with its arguments.
        pt_regs_mode: The word that tells in which mode the processor was, `mode_mask` its bits, `user_mode` their value
            in user space.
        mode_32_bit: A bit of that word: the program has 32 bits. 0 where only `compat_status` tells.
        title_32_bit: What its system calls of 32-bit programs are called.
        compat_status: The member of the kernel's that tells system calls of 32-bit programs; empty where there is none.
        red_zone_bytes: In use below the stack pointer.
        code_address_bits: What is above them in a return address is no part of it.
        thread_pointer: Where the kernel keeps a thread's thread pointer.
        thread_pointer_of: What that register holds in the thread whose `pthread_self()` is given; None if the C library
            of that memory is none that we know, or there is no such thread.
        glibc_keys_at: From `pthread_self()` on, the values of a thread's first 32 keys in glibc.
        mutex_bytes: The size of glibc's pthread_mutex_t.
        keeps_caller: Can a function be left without unwinding table, given its code: does it move neither the stack
            pointer nor the register that holds the return address? None where no function can.
        preempt_count: The member of `struct task_struct` with the count; empty where it is each CPU's.
        cpu_preempt_count: Otherwise: per-CPU variables, and the member of each, the first that exists counts.
        flags: Kind of argument -> bits and their names, of the kinds that differ between machines. Larger masks come
            first.
    """

    name: str
    title: str
    elf_machine: int
    audit_architecture: int
    system_calls: str = field(repr=False)
    stack_pointer: int
    program_counter: int
    return_address: int
    pt_regs_of_unwinding: tuple[int, ...]
    pt_regs_count: int
    pt_regs_pointers: int
    pt_regs_call: int
    pt_regs_arguments: tuple[int, ...]
    pt_regs_mode: int
    mode_mask: int
    user_mode: int
    thread_pointer: str
    thread_pointer_of: Callable[[int, Read], int | None]
    glibc_keys_at: int
    mutex_bytes: int
    flags: Mapping[str, str] = field(repr=False)
    title_32_bit: str
    mode_32_bit: int = 0
    compat_status: str = ""
    red_zone_bytes: int = 0
    code_address_bits: int = 64
    preempt_count: str = ""
    keeps_caller: Callable[[bytes], bool] | None = None
    cpu_preempt_count: tuple[tuple[str, str], ...] = ()
    frame_pointer: int | None = None

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: int(number) for number, name, *_ in map(str.split, self.system_calls.splitlines())}

    def system_call_number(self, name: str) -> int | None:
        """The number of a system call; None if there is none of this name."""
        return self._numbers.get(name)

    @property
    def signs_addresses(self) -> bool:
        """Do return addresses hold a code that proves them genuine?"""
        return self.code_address_bits < 64

    @property
    def task_members(self) -> dict[str, str]:
        """Members that programs which ask for 32-bit system calls need: name of the constant -> `struct.member`."""
        return {"TASK_STATUS": self.compat_status} if self.compat_status else {}

    def kernel_defines(self) -> dict[str, int]:
        """What programs in the kernel must know of this machine. Places are words of struct pt_regs."""
        first = min(self.pt_regs_arguments)
        defines = {
            "REGISTERS": self.pt_regs_count,
            "REGISTERS_WITH_POINTERS": self.pt_regs_pointers,
            "REGISTER_STACK_POINTER": self.pt_regs_of_unwinding[self.stack_pointer],
            "REGISTER_MODE": self.pt_regs_mode,
            "MODE_MASK": self.mode_mask,
            "USER_MODE": self.user_mode,
            "REGISTER_CALL": self.pt_regs_call,
            **{f"REGISTER_ARGUMENT_{number}": place for number, place in enumerate(self.pt_regs_arguments)},
            "FIRST_ARGUMENT_REGISTER": first,
            "ARGUMENT_REGISTERS": max(self.pt_regs_arguments) - first + 1,
            "RED_ZONE_BYTES": self.red_zone_bytes,
            "MUTEX_BYTES": self.mutex_bytes,
            **{f"SYSCALL_{name.upper()}": self._numbers[name] for name in ("exit", "exit_group", "futex")},
        }
        if self.mode_32_bit:
            defines["MODE_32_BIT"] = self.mode_32_bit
        if self.preempt_count:
            defines["TASKS_COUNT_PREEMPTION"] = 1
        return defines
