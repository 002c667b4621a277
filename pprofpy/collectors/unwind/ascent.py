"""One thread's way from its leaf to its root, frame by frame; with all that it depends on, for it to be remembered.

What functions have saved of their callers' registers is read only when it is needed, which is seldom: most of it does
not matter for where the next frame is, and changes from sample to sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pprofpy.arch.machine import Machine
from pprofpy.collectors.unwind.cfi import Rule, RuleKind, UnwindRow
from pprofpy.collectors.unwind.dwarf import MASK_64, evaluate
from pprofpy.collectors.unwind.stackcopy import StackCopy


@dataclass(slots=True)
class Step:
    """A frame, and what the way from it to its caller depends on.

    Attributes:
        address: Its instruction.
        stack_pointer: As it was there.
        loops: How many evaluation loops were met before.
        function: As in a Chain.
        uses: Registers whose values mattered.
        reads: Words of the stack that mattered, by address; of registers that are saved here, also those that mattered
            later.
        saves: Registers that are others' from here on.
    """

    address: int
    stack_pointer: int
    loops: int
    function: int = 0
    uses: dict[int, int] = field(default_factory=dict)
    reads: dict[int, int] = field(default_factory=dict)
    saves: frozenset[int] = frozenset()


class Ascent:
    """Where a thread is on that way. It is also the registers of the current frame, by their numbers in tables.

    Args:
        copy: What was copied of the thread.
        machine: Of which kind it is.

    Attributes:
        steps: The frames so far.
    """

    def __init__(self, copy: StackCopy, machine: Machine) -> None:
        self.copy = copy
        self.steps: list[Step] = []
        self._machine = machine
        self._values = list(copy.registers)
        self._saved: dict[int, tuple[int, Step]] = {}

    def begin(self, address: int, loops: int) -> Step:
        """Begin with a frame."""
        step = Step(address, self._values[self._machine.stack_pointer], loops)
        self.steps.append(step)
        return step

    def value(self, register: int) -> int:
        """Return what a register holds, wherever that is."""
        if register in self._saved:
            address, step = self._saved.pop(register)
            self._values[register] = step.reads[address] = self.copy.word(address)
        return self._values[register]

    def __getitem__(self, register: int) -> int:
        value = self.steps[-1].uses[register] = self.value(register)
        return value

    def __len__(self) -> int:
        return len(self._values)

    def word(self, address: int) -> int:
        """Return 8 bytes of the stack."""
        value = self.steps[-1].reads[address] = self.copy.word(address)
        return value

    def frame(self, row: UnwindRow) -> int:
        """Return the address that the current frame is known by."""
        if row.expression:
            return evaluate(row.expression, self, self.word)
        if row.register == self._machine.stack_pointer:
            return self._values[row.register] + row.offset & MASK_64
        return self[row.register] + row.offset & MASK_64

    def climb(self, row: UnwindRow, frame: int, saves: frozenset[int]) -> int:
        """Go on to the caller; return the address to which the current frame returns, 0 if there is none."""
        step = self.steps[-1]
        found = [
            (register, frame + rule.value, True)
            if rule.kind is RuleKind.SAVED_AT
            else (register, *self._elsewhere(rule, frame))
            for register, rule in row.saved
        ]
        for register, value, is_address in found:
            if is_address:
                self._saved[register] = value, step
            else:
                self._saved.pop(register, None)
                self._values[register] = value
        self._values[self._machine.stack_pointer] = frame
        step.saves = saves
        returns_to = self._machine.return_address
        return self.value(returns_to) if returns_to in saves else self[returns_to]

    def climb_by_pointer(self, register: int) -> int:
        """Go on to the caller by a frame pointer. A return address lies above what the frame's own caller had in it."""
        step, pointer = self.steps[-1], self[register]
        self._saved[register] = pointer, step
        self._values[self._machine.stack_pointer] = pointer + 16
        step.saves = frozenset({register, self._machine.stack_pointer, self._machine.return_address})
        return self.word(pointer + 8)

    def _elsewhere(self, rule: Rule, frame: int) -> tuple[int, bool]:
        """What is not saved at a fixed place: a value, or (True) the address where it is."""
        match rule.kind:
            case RuleKind.VALUE_IS:
                return frame + rule.value & MASK_64, False
            case RuleKind.IN_REGISTER:
                return self[rule.value], False
            case RuleKind.SAVED_AT_EXPRESSION:
                return evaluate(rule.expression, self, self.word, frame), True
            case RuleKind.VALUE_IS_EXPRESSION:
                return evaluate(rule.expression, self, self.word, frame), False
            case _:
                return 0, False
