"""The general registers of a stopped thread, and what to change in them to send it elsewhere and back.

Source: struct user_regs_struct in the kernel's asm/user_64.h; man 2 ptrace; System V ABI for AMD64.
"""

from __future__ import annotations

import ctypes

from pprofpy.arch.x86_64 import RED_ZONE_BYTES

GET_REGISTERS, SET_REGISTERS = 12, 13
"""Requests of ptrace(2) that only this machine has."""

_NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
    "ds es fs gs"
)
_ALL = (1 << 64) - 1
_DIRECTION, _TRAP, _ALIGNMENT = 1 << 10, 1 << 8, 1 << 18
_USER_CODE_64 = 0x33
_SYSTEM_CALL_BYTES = 2
_CACHE_LINE = 64
_AT_MINSIGSTKSZ = 51
_PAGE = 4096


class Registers(ctypes.Structure):
    """The general registers, in the kernel's order."""

    _fields_ = [(name, ctypes.c_uint64) for name in _NAMES.split()]

    cs: int
    eflags: int
    orig_rax: int
    rax: int
    rbx: int
    rdx: int
    rip: int
    rsi: int
    rsp: int

    def copy(self) -> Registers:
        """Another set with the same values."""
        return Registers.from_buffer_copy(self)

    @property
    def is_64_bit(self) -> bool:
        """Does the thread run 64-bit code?"""
        return self.cs == _USER_CODE_64

    @property
    def instruction_pointer(self) -> int:
        """The address of the next instruction."""
        return self.rip

    @property
    def stack_pointer(self) -> int:
        """The lower end of the stack, but for the red zone."""
        return self.rsp

    @property
    def system_call(self) -> int:
        """The number of the system call that the thread is in; negative if it is in none."""
        return signed(self.orig_rax)

    @property
    def result(self) -> int:
        """What the system call returns; a negative error's number."""
        return signed(self.rax)

    @property
    def arguments(self) -> tuple[int, int]:
        """The system call's second and third argument."""
        return self.rsi, self.rdx

    def begin_call_anew(self) -> None:
        """Make the thread's next instruction the system call that was broken off."""
        self.rax, self.rip = self.orig_rax, self.rip - _SYSTEM_CALL_BYTES

    def set_error(self, number: int) -> None:
        """Let the system call return an error; the kernel may still repeat it."""
        self.rax = -number & _ALL

    def end_call(self, number: int) -> None:
        """Let the system call return an error: the kernel does not repeat it."""
        self.set_error(number)
        self.orig_rax = _ALL

    def frame_below(self, size: int) -> int:
        """The address of so many unused bytes on the thread's stack."""
        return self.rsp - RED_ZONE_BYTES - size & ~(_CACHE_LINE - 1)

    def diverted(self, code: int, frame: int) -> Registers:
        """Those with which the thread runs other code.

        Args:
            code: The address of its first instruction.
            frame: The lower end of its stack, of which it is told, too.
        """
        other = self.copy()
        other.rip, other.rsp, other.rbx = code, frame, frame
        other.orig_rax = _ALL
        other.eflags &= ~(_DIRECTION | _TRAP | _ALIGNMENT)
        return other


def extended_state_bytes() -> int:
    """Room for what XSAVE writes on this processor; the kernel says how much its own signal frames need at most."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.restype = ctypes.c_ulong
    return (max(int(getauxval(_AT_MINSIGSTKSZ)), _PAGE) + _CACHE_LINE - 1) & ~(_CACHE_LINE - 1)


def signed(register: int) -> int:
    """A register's value as a signed number."""
    return register - (register >> 63 << 64)
