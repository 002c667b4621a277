"""How the functions of an ELF file lay out their stack: for each instruction, where the caller's registers are.

Compilers write it down for exceptions, in programs in C as well: `.eh_frame`, with an index sorted by address,
`.eh_frame_hdr`. It stays in stripped files. Frame pointers, in contrast, are what most builds of Python leave out.

Source: DWARF 5, 6.4; Linux Standard Base Core, "Exception Frames".
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

import numpy as np

from pprofpy.arch import here
from pprofpy.arch.machine import Machine
from pprofpy.budget import Budget
from pprofpy.collectors.unwind.dwarf import MASK_64, CfiError, Cursor

_SORTED_TABLE = 0x3B  # pairs of 32-bit numbers, relative to the index
_2_GB = 1 << 31

# Whatever the maker of a file likes to write ends here. Compilers stay below a tenth of each.
_MOST_FUNCTIONS = 4 << 20
_LONGEST_ENTRY = 256 << 10
_MOST_ROWS, _MOST_STEPS, _MOST_REMEMBERED = 10_000, 100_000, 64
_MOST_KEPT_ROWS = 100_000


class RuleKind(Enum):
    """What a Rule says of a caller's register."""

    SAVED_AT = 0
    """It is in memory, at the frame's address + value."""

    VALUE_IS = 1
    """It is that address itself."""

    IN_REGISTER = 2
    """It is in the register `value`."""

    SAVED_AT_EXPRESSION = 3
    """It is in memory, where the expression says."""

    VALUE_IS_EXPRESSION = 4
    """It is what the expression says."""

    UNDEFINED = 5
    """It is lost; of the return address: there is no caller."""


class Rule(NamedTuple):
    """Where a caller's register is."""

    kind: RuleKind
    value: int = 0
    expression: bytes = b""


@dataclass(frozen=True, slots=True)
class UnwindRow:
    """How to get from a frame to its caller.

    Attributes:
        register, offset: The frame's address (the stack pointer before the call) is this register's value + offset.
        expression: It is what this says instead, unless empty.
        saved: Register -> where the caller's value is; others are what they were.
        is_signal: The caller was interrupted, it did not call: its address is that of an instruction not yet run.
    """

    register: int
    offset: int
    expression: bytes = b""
    saved: tuple[tuple[int, Rule], ...] = ()
    is_signal: bool = False


class CfiTable:
    """The unwinding tables of one file.

    Args:
        read: Gives bytes at an address of the file as it asks to be loaded: (address, size) -> bytes, fewer at its end.
        index: Where `.eh_frame_hdr` is.

    Attributes:
        size: How many bytes of the file are kept.

    Raises:
        CfiError: There is no index of the usual kind.
    """

    def __init__(self, read: Callable[[int, int], bytes], index: int) -> None:
        self._read = read
        head = read(index, 12)
        if len(head) < 12 or head[0] != 1 or head[2] != 3 or head[3] != _SORTED_TABLE:
            raise CfiError("no sorted index of unwinding tables")
        (count,) = struct.unpack_from("<I", head, 8)
        if count > _MOST_FUNCTIONS:
            raise CfiError(f"an index of {count} unwinding tables")
        content = read(index + 12, count * 8)
        pairs = np.frombuffer(content[: len(content) // 8 * 8], "<i4").reshape(-1, 2)
        self._index, self._starts, self._entries = index, pairs[:, 0], pairs[:, 1]
        self.size = len(content)
        self._machine = here()
        self._known: dict[int, _Function] = {}
        self._kept_rows = 0
        self._heads: dict[int, _Common] = {}

    def row(self, address: int, budget: Budget | None = None) -> UnwindRow | None:
        """How to unwind from the instruction at `address`; None if no function is known there.

        Args:
            address: As the file asks to be loaded.
            budget: Pays for tables that have not been read yet.

        Raises:
            CfiError: The tables are damaged, or say something that we do not know.
            ImplausibleTargetError: The budget is spent.
        """
        function = self._function(address, budget)
        return function.row(address) if function else None

    def _function(self, address: int, budget: Budget | None) -> _Function | None:
        offset = address - self._index
        place = int(np.searchsorted(self._starts, offset, side="right")) - 1 if -_2_GB <= offset < _2_GB else -1
        if place < 0:
            return None
        if place not in self._known:
            if self._kept_rows > _MOST_KEPT_ROWS:
                self._known, self._heads, self._kept_rows = {}, {}, 0
            try:
                function = self._known[place] = self._parse(self._index + int(self._entries[place]), budget)
            except (struct.error, LookupError, ArithmeticError) as error:
                raise CfiError(f"an unwinding table is damaged ({error})") from error
            self._kept_rows += len(function.rows)
        function = self._known[place]
        return function if function.start <= address < function.end else None

    def _parse(self, place: int, budget: Budget | None) -> _Function:
        body, at = self._entry(place)
        (back,) = struct.unpack_from("<I", body.data)
        common = self._common(at - back, budget)
        body.at = 4
        start = body.pointer(common.encoding, at)
        length = body.pointer(common.encoding & 0x0F, at)
        if common.has_length:
            body.at += body.unsigned()
        return _Function(start, start + length, common.run(body, start, at, budget))

    def _common(self, place: int, budget: Budget | None) -> _Common:
        """What several functions share. Source: the layout of a CIE."""
        if place in self._heads:
            return self._heads[place]
        body, at = self._entry(place)
        body.at = 5
        augmentation = body.text()
        if body.data[:4] != b"\0\0\0\0" or augmentation.startswith("eh"):
            raise CfiError("an unwinding table begins in an unknown way")
        code_step, data_step = body.unsigned(), body.signed()
        return_register = body.unsigned()
        encoding, is_signal, has_length = 0, "S" in augmentation, augmentation.startswith("z")
        end = body.at + body.unsigned() if has_length else body.at
        for letter in augmentation[1:]:
            if letter == "R":
                encoding = body.byte()
            elif letter == "L":
                body.byte()
            elif letter == "P":
                body.pointer(body.byte(), at)
        body.at = max(end, body.at)
        if return_register != self._machine.return_address:
            raise CfiError("an unwinding table is for another machine")
        common = _Common(self._machine, code_step, data_step, encoding, has_length)
        first = common.run(body, 0, at, budget)[-1][1]
        common.first = replace(first, is_signal=is_signal)
        self._heads[place] = common
        return common

    def _entry(self, place: int) -> tuple[Cursor, int]:
        """The entry at `place` without its length, and where that begins."""
        (length,) = struct.unpack("<I", self._read(place, 4))
        if length > _LONGEST_ENTRY:
            raise CfiError(f"an unwinding table of {length} bytes")
        return Cursor(self._read(place + 4, length)), place + 4


@dataclass(frozen=True, slots=True)
class _Function:
    """A function, or a part of one, with its rows by the address from which on they hold."""

    start: int
    end: int
    rows: list[tuple[int, UnwindRow]]

    def row(self, address: int) -> UnwindRow:
        return self.rows[bisect_right(self.rows, address, key=lambda pair: pair[0]) - 1][1]


@dataclass(slots=True)
class _Common:
    """What the entries of several functions share."""

    machine: Machine
    code_step: int
    data_step: int
    encoding: int
    has_length: bool
    first: UnwindRow = field(init=False)

    def __post_init__(self) -> None:
        self.first = UnwindRow(self.machine.stack_pointer, 0)

    def run(self, body: Cursor, start: int, base: int, budget: Budget | None) -> list[tuple[int, UnwindRow]]:
        """Execute the instructions in `body`; the rows that come out, by address."""
        return _Machine(self, body, start, base).run(budget)


@dataclass(slots=True)
class _Machine:
    """The state while the instructions of a table are executed."""

    common: _Common
    body: Cursor
    address: int
    base: int
    cfa: tuple[int, int, bytes] = field(init=False)
    saved: dict[int, Rule] = field(init=False)
    remembered: list[tuple[tuple[int, int, bytes], dict[int, Rule]]] = field(default_factory=list)
    rows: list[tuple[int, UnwindRow]] = field(default_factory=list)

    def __post_init__(self) -> None:
        first = self.common.first
        self.cfa, self.saved = (first.register, first.offset, first.expression), dict(first.saved)

    def run(self, budget: Budget | None) -> list[tuple[int, UnwindRow]]:
        steps = 0
        while self.body.at < len(self.body.data):
            steps += 1
            if steps > _MOST_STEPS or len(self.rows) > _MOST_ROWS or len(self.remembered) > _MOST_REMEMBERED:
                raise CfiError("an unwinding table that does not end")
            if budget:
                budget.step()
            opcode = self.body.byte()
            kind, low = opcode & 0xC0, opcode & 0x3F
            if kind == 0x40:
                self._advance(low)
            elif kind == 0x80:
                self._save(low, RuleKind.SAVED_AT, self.body.unsigned())
            elif kind == 0xC0:
                self._restore(low)
            else:
                self._extended(low)
        self._advance(0)
        return self.rows

    def _advance(self, steps: int) -> None:
        """What holds now holds up to `steps` further."""
        if self.cfa[0] > self.common.machine.program_counter:
            raise CfiError(f"a frame that is known by register {self.cfa[0]}")
        row = UnwindRow(*self.cfa, tuple(self.saved.items()), self.common.first.is_signal)
        self.rows.append((self.address, row))
        self.address = self.address + steps * self.common.code_step & MASK_64

    def _rule(self, register: int, rule: Rule) -> None:
        last = self.common.machine.program_counter
        if rule.kind is RuleKind.IN_REGISTER and rule.value > last:
            rule = Rule(RuleKind.UNDEFINED)
        if register <= last:  # those of vectors do not matter
            self.saved[register] = rule

    def _save(self, register: int, kind: RuleKind, factored: int) -> None:
        self._rule(register, Rule(kind, factored * self.common.data_step))

    def _restore(self, register: int) -> None:
        before = dict(self.common.first.saved)
        self.saved.pop(register, None)
        if register in before:
            self.saved[register] = before[register]

    def _extended(self, opcode: int) -> None:
        """Source: DWARF 5, table 7.29; 0x2e and 0x2f are GNU's, 0x2c and 0x2d arm64's (AADWARF64, 4.5)."""
        body = self.body
        match opcode:
            case 0x00:
                pass
            case 0x01:
                steps = body.pointer(self.common.encoding, self.base) - self.address
                self._advance(steps // self.common.code_step)
            case 0x02 | 0x03 | 0x04:
                self._advance(body.number({2: "<B", 3: "<H", 4: "<I"}[opcode]))
            case 0x05:
                self._save(body.unsigned(), RuleKind.SAVED_AT, body.unsigned())
            case 0x06:
                self._restore(body.unsigned())
            case 0x07:
                self._rule(body.unsigned(), Rule(RuleKind.UNDEFINED))
            case 0x08:
                self.saved.pop(body.unsigned(), None)
            case 0x09:
                self._rule(body.unsigned(), Rule(RuleKind.IN_REGISTER, body.unsigned()))
            case 0x0A:
                self.remembered.append((self.cfa, dict(self.saved)))
            case 0x0B:
                self.cfa, self.saved = self.remembered.pop()
            case 0x0C:
                self.cfa = body.unsigned(), body.unsigned(), b""
            case 0x0D:
                self.cfa = body.unsigned(), self.cfa[1], b""
            case 0x0E:
                self.cfa = self.cfa[0], body.unsigned(), b""
            case 0x0F:
                self.cfa = self.common.machine.stack_pointer, 0, body.block()
            case 0x10:
                self._rule(body.unsigned(), Rule(RuleKind.SAVED_AT_EXPRESSION, 0, body.block()))
            case 0x11:
                self._save(body.unsigned(), RuleKind.SAVED_AT, body.signed())
            case 0x12:
                self.cfa = body.unsigned(), body.signed() * self.common.data_step, b""
            case 0x13:
                self.cfa = self.cfa[0], body.signed() * self.common.data_step, b""
            case 0x14:
                self._save(body.unsigned(), RuleKind.VALUE_IS, body.unsigned())
            case 0x15:
                self._save(body.unsigned(), RuleKind.VALUE_IS, body.signed())
            case 0x16:
                self._rule(body.unsigned(), Rule(RuleKind.VALUE_IS_EXPRESSION, 0, body.block()))
            case 0x2C | 0x2D if self.common.machine.signs_addresses:
                pass  # from here on the return address is signed, or not any more: its code is taken off in any case
            case 0x2E:
                body.unsigned()
            case 0x2F:
                self._save(body.unsigned(), RuleKind.SAVED_AT, -body.unsigned())
            case _:
                raise CfiError(f"unknown instruction {opcode:#x} in an unwinding table")
