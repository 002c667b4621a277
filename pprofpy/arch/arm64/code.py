"""Machine code of arm64: functions that need no unwinding table.

A leaf that neither moves the stack pointer nor writes the link register (x30) can be left from any of its instructions:
its caller's frame begins at the stack pointer, and the register holds where it returns to. The kernel's own code in
every process (vdso) has no tables on arm64, and its functions that tell the time are such leaves.

Source: Arm Architecture Reference Manual for A-profile, C4.1 (A64 instruction set encoding).
"""

from __future__ import annotations

import struct

_MOVE_STACK = (
    (0x3F80001F, 0x1100001F),  # add, sub: immediate, without flags, into sp
    (0x3FE0001F, 0x0B20001F),  # the same of extended registers
    (0x7F80001F, 0x1200001F), (0x7F80001F, 0x3200001F), (0x7F80001F, 0x5200001F),  # and, orr, eor: immediate, into sp
    (0x3A8003E0, 0x288003E0),  # pairs of registers, stored or loaded at sp, which is moved
    (0x3B2007E0, 0x380007E0),  # single ones
    (0xBE8003E0, 0x0C8003E0),  # vectors
)  # fmt: skip
_WRITE_LINK = (
    (0xFC000000, 0x94000000), (0xFEFF0000, 0xD63F0000),  # bl, blr and its kinds that authenticate
    (0x1C00001F, 0x1000001E), (0x0E00001F, 0x0A00001E),  # computed, of immediates or of registers, into x30
    (0x3A40001F, 0x2840001E), (0x3A407C00, 0x28407800),  # loaded as one of a pair
    (0x3800001F, 0x3800001E), (0x3B00001F, 0x1800001E), (0x3F00001F, 0x0800001E),  # loaded (or stored) alone
    (0xFFF0001F, 0xD530001E), (0x1E00001F, 0x1E00001E),  # from a register of the system's, or a vector's
)  # fmt: skip
"""(mask, value): instructions whose bits in the mask have the value. Some that do no harm are among them."""

_WORD = struct.Struct("<I")


def keeps_caller(code: bytes) -> bool:
    """Is this a function that moves neither the stack pointer nor the link register?

    Args:
        code: All of it.
    """
    words = [word for (word,) in _WORD.iter_unpack(code[: len(code) // _WORD.size * _WORD.size])]
    return bool(words) and not any(
        word & mask == value for word in words for mask, value in (*_MOVE_STACK, *_WRITE_LINK)
    )
