"""From a copy of a thread's registers and stack to the native functions that were running.

A stack is followed from its leaf to where Python takes over: the evaluation loop that runs the leaf-most Python
function. Where an interpreter keeps something of its own in that loop's frame (3.11 and later), the loop is known for
certain, stripped or not; else it is told by its name, which all builds export.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from pprofpy.arch import here
from pprofpy.budget import Budget
from pprofpy.collectors.unwind.cfi import Rule, RuleKind, UnwindRow
from pprofpy.collectors.unwind.codemap import CodeMap
from pprofpy.collectors.unwind.dwarf import CfiError, evaluate
from pprofpy.collectors.unwind.image import NativeFunction
from pprofpy.errors import ImplausibleTargetError


class Ending(IntEnum):
    """Where following a stack came to its end."""

    AT_PYTHON = 0
    """At the evaluation loop."""

    AT_START = 1
    """Where the thread began."""

    CUT = 2
    """At the end of what was copied, which is not the stack's."""

    NO_TABLE = 3
    """In code without unwinding tables."""

    BROKEN = 4
    """Where something made no sense."""

    TOO_LONG = 5
    """Where reading the process's files took too long."""


_LOOP = "_PyEval_EvalFrameDefault"
_MAX_FRAMES = 1024
_STEPS_OF_LEARNING = 1024
"""What a budget pays to name a function, besides reading how to unwind from it."""

_MAX_PLACES = 200_000
"""So many instructions are known at a time."""

_NOWHERE = NativeFunction("", "", "[unknown]")
PAGE_BYTES = 4096
_WORD = struct.Struct("<Q")
_64_BITS = (1 << 64) - 1


class Chain(NamedTuple):
    """The native functions of a stack, leaf-first, as indices into `Unwinder.functions`, and how it ends."""

    functions: tuple[int, ...]
    ending: Ending


@dataclass(frozen=True, slots=True)
class StackCopy:
    """What was copied of a thread.

    Attributes:
        registers: By their number in unwinding tables.
        start: The address of what was copied of its stack: a little below the stack pointer, where functions keep
            values, too.
        content: What was copied.
        absent: Which of its pages could not be read: a bit each, from the first on.
        is_cut: There is more of it.
        loop: An address within the frame of the evaluation loop that runs the leaf-most Python function; 0: unknown.
    """

    registers: tuple[int, ...]
    start: int
    content: bytes
    absent: int
    is_cut: bool
    loop: int

    def word(self, address: int) -> int:
        """8 bytes of the stack."""
        offset = address - self.start
        if offset < 0:
            raise CfiError("a frame that lies before the stack's leaf")
        if offset + 8 > len(self.content):
            raise _EndOfCopyError
        if self.absent and self.absent >> offset // PAGE_BYTES & 1:
            raise CfiError("a frame in memory that could not be read")
        return int(_WORD.unpack_from(self.content, offset)[0])


class _EndOfCopyError(Exception):
    """An address is beyond what was copied of a stack."""


class _Place(NamedTuple):
    """An instruction: which function it belongs to, how to unwind from it, and whether that is Python's loop.

    `leaf_row` holds where there is no table, for the innermost function alone.
    """

    function: int
    row: UnwindRow | None
    is_loop: bool
    leaf_row: UnwindRow | None


class Unwinder:
    """Follows the stacks of one process.

    Args:
        code: Where its code is.
        functions: Every function that was met, appended to; shared by all processes of a recording.
        numbers: Function -> its index in `functions`.
    """

    def __init__(self, code: CodeMap, functions: list[NativeFunction], numbers: dict[NativeFunction, int]) -> None:
        self._code = code
        self._functions = functions
        self._numbers = numbers
        self._places: dict[int, _Place] = {}
        self._machine = here()
        self._code_addresses = (1 << self._machine.code_address_bits) - 1

    def refresh(self) -> None:
        """Look what code the process has now."""
        if self._code.refresh() or len(self._places) > _MAX_PLACES:
            self._places.clear()

    def follow(self, copy: StackCopy, budget: Budget) -> Chain:
        """The native functions of a stack.

        Args:
            copy: The stack.
            budget: Pays for what has to be read of the process's files.
        """
        functions: list[int] = []
        ending = Ending.BROKEN
        try:
            ending = self._follow(copy, functions, budget)
        except _EndOfCopyError:
            ending = Ending.CUT if copy.is_cut else Ending.BROKEN
        except ImplausibleTargetError:
            ending = Ending.TOO_LONG
        except (CfiError, OSError):
            pass
        return Chain(tuple(functions), ending)

    def _follow(self, copy: StackCopy, functions: list[int], budget: Budget) -> Ending:
        registers, stack_pointer = list(copy.registers), self._machine.stack_pointer
        address, is_leaf = registers[self._machine.program_counter], True
        for _ in range(_MAX_FRAMES):
            budget.step()
            if not address:
                return Ending.AT_START
            place = self._places.get(address) or self._learn(address, budget)
            if place.is_loop and not copy.loop:
                return Ending.AT_PYTHON
            row = place.row or (place.leaf_row if is_leaf else None)
            if row is None:
                functions.append(place.function)
                return Ending.NO_TABLE
            frame = _frame(row, registers, copy)
            if copy.loop and frame > copy.loop:
                return Ending.AT_PYTHON
            functions.append(place.function)
            if not self._is_frame(row, frame - registers[stack_pointer], is_leaf=is_leaf):
                return Ending.BROKEN
            _climb(registers, row, frame, copy)
            registers[stack_pointer] = frame
            address = registers[self._machine.return_address] & self._code_addresses
            address -= not row.is_signal and address > 0
            is_leaf = False
        return Ending.BROKEN

    def _is_frame(self, row: UnwindRow, size: int, *, is_leaf: bool) -> bool:
        """Can a frame be so large? Where calls leave the return address in a register, a leaf's may be empty, but all
        others have saved it."""
        if self._machine.return_address == self._machine.program_counter:
            return size > 0
        if is_leaf:
            return size >= 0
        return size > 0 and any(register == self._machine.return_address for register, _ in row.saved)

    def _learn(self, address: int, budget: Budget) -> _Place:
        """Remember what is to be known of an instruction."""
        found = self._code.find(address)
        function, row, leaf_row = _NOWHERE, None, None
        if found:
            image, bias = found
            budget.step(_STEPS_OF_LEARNING)
            function = image.function(address - bias)
            row = image.row(address - bias, budget)
            keeps_caller = self._machine.keeps_caller
            if row is None and keeps_caller and keeps_caller(image.code(address - bias)):
                leaf_row = UnwindRow(self._machine.stack_pointer, 0)
        number = self._numbers.setdefault(function, len(self._functions))
        if number == len(self._functions):
            self._functions.append(function)
        place = self._places[address] = _Place(number, row, function.name == _LOOP, leaf_row)
        return place


def _frame(row: UnwindRow, registers: list[int], copy: StackCopy) -> int:
    """The address that a frame is known by."""
    if row.expression:
        return evaluate(row.expression, registers, copy.word)
    return registers[row.register] + row.offset & _64_BITS


def _climb(registers: list[int], row: UnwindRow, frame: int, copy: StackCopy) -> None:
    """Make a frame's registers those of its caller, but for the stack pointer; a return address of 0: there is none."""
    values = []
    for register, rule in row.saved:
        if rule.kind is RuleKind.SAVED_AT:
            values.append((register, copy.word(frame + rule.value)))
        else:
            values.append((register, _value(rule, registers, frame, copy)))
    for register, value in values:
        registers[register] = value


def _value(rule: Rule, registers: list[int], frame: int, copy: StackCopy) -> int:
    match rule.kind:
        case RuleKind.VALUE_IS:
            return frame + rule.value & _64_BITS
        case RuleKind.IN_REGISTER:
            return registers[rule.value]
        case RuleKind.SAVED_AT_EXPRESSION:
            return copy.word(evaluate(rule.expression, registers, copy.word, frame))
        case RuleKind.VALUE_IS_EXPRESSION:
            return evaluate(rule.expression, registers, copy.word, frame)
        case _:
            return 0
