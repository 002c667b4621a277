"""Numbers and expressions as DWARF writes them, from files that may be damaged or forged.

Source: DWARF 5, 2.5 and 7.6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

_OMITTED = 0xFF
_FORMATS = {0: "<Q", 2: "<H", 3: "<I", 4: "<Q", 10: "<h", 11: "<i", 12: "<q"}
_RELATIVE_TO_PLACE = 0x10
MASK_64 = 0xFFFFFFFFFFFFFFFF
_LONGEST_NUMBER = 10
_LONGEST_EXPRESSION = 256


class CfiError(ValueError):
    """Tables that are damaged, or say something that we do not know."""


class RegisterValues(Protocol):
    """The values of registers, by their numbers."""

    def __len__(self) -> int: ...

    def __getitem__(self, register: int, /) -> int: ...


class Cursor:
    """Reads numbers of all kinds, one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        """One byte."""
        self.at += 1
        return self.data[self.at - 1]

    def number(self, form: str) -> int:
        """A number in a format of `struct`."""
        self.at += struct.calcsize(form)
        return int(struct.unpack_from(form, self.data, self.at - struct.calcsize(form))[0])

    def unsigned(self) -> int:
        """LEB128: seven bits a byte, the lowest first; of 64 bits at most.

        Raises:
            CfiError: It has more than 64 bits.
        """
        value = 0
        for shift in range(0, 7 * _LONGEST_NUMBER, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & MASK_64
        raise CfiError("a number of more than 64 bits in an unwinding table")

    def signed(self) -> int:
        """LEB128 with a sign."""
        start, value = self.at, self.unsigned()
        bits = min(7 * (self.at - start), 64)
        return value - (1 << bits) if value >> (bits - 1) else value

    def text(self) -> str:
        """Up to a byte of 0."""
        found, _, _ = self.data[self.at :].partition(b"\0")
        self.at += len(found) + 1
        return found.decode("latin-1")

    def block(self) -> bytes:
        """Bytes after their number.

        Raises:
            CfiError: It is too long.
        """
        size = self.unsigned()
        if size > _LONGEST_EXPRESSION:
            raise CfiError(f"an expression of {size} bytes in an unwinding table")
        self.at += size
        return self.data[self.at - size : self.at]

    def pointer(self, encoding: int, base: int) -> int:
        """A number in one of several encodings; `base` is the address of `data`.

        Raises:
            CfiError: The encoding is unknown.
        """
        if encoding == _OMITTED:
            return 0
        form, place = _FORMATS.get(encoding & 0x0F), base + self.at
        if form is None or encoding & 0x60:
            raise CfiError(f"an address in the unknown encoding {encoding:#x}")
        value = self.number(form)
        return value + place if encoding & _RELATIVE_TO_PLACE and value else value


def evaluate(expression: bytes, registers: RegisterValues, word: Callable[[int], int], first: int | None = None) -> int:
    """What a DWARF expression says, 64 bits of it; those that compilers write for unwinding need but a few operations.

    Args:
        expression: Its bytes.
        registers: Their values.
        word: Reads 8 bytes of memory.
        first: What is on its stack when it begins, if anything.

    Raises:
        CfiError: It does something else.
    """
    body, stack = Cursor(expression), [] if first is None else [first]
    try:
        while body.at < len(expression):
            opcode = body.byte()
            if 0x30 <= opcode < 0x50:
                stack.append(opcode - 0x30)
            elif 0x70 <= opcode < 0x70 + min(len(registers), 32):
                stack.append(registers[opcode - 0x70] + body.signed() & MASK_64)
            elif opcode in _CONSTANTS:
                stack.append(body.number(_CONSTANTS[opcode]) & MASK_64)
            elif opcode in _OPERATIONS:
                second, other = stack.pop(), stack.pop()
                stack.append(_OPERATIONS[opcode](other, second) & MASK_64)
            elif opcode == 0x06:
                stack.append(word(stack.pop()))
            elif opcode == 0x23:
                stack.append(stack.pop() + body.unsigned() & MASK_64)
            else:
                raise CfiError(f"unknown operation {opcode:#x} in an unwinding table")
        return stack[-1] & MASK_64
    except (IndexError, struct.error) as error:
        raise CfiError("an expression in an unwinding table makes no sense") from error


_CONSTANTS = {0x08: "<B", 0x09: "<b", 0x0A: "<H", 0x0B: "<h", 0x0C: "<I", 0x0D: "<i", 0x0E: "<Q", 0x0F: "<q"}
_OPERATIONS: dict[int, Callable[[int, int], int]] = {
    0x1A: lambda a, b: a & b,
    0x1C: lambda a, b: a - b,
    0x1E: lambda a, b: a * b,
    0x21: lambda a, b: a | b,
    0x22: lambda a, b: a + b,
    0x24: lambda a, b: a << (b & 63),
    0x25: lambda a, b: a >> (b & 63),
    0x2A: lambda a, b: int(a >= b),
}
