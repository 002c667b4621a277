"""From a copy of a thread's registers and stack to the native functions that were running, up to where it began.

Evaluation loops among them stand for the Python functions that they run. Where an interpreter keeps something of its
own in a loop's frame (3.11 and later), the loop is known for certain, stripped or not; older ones are told by their
name, which all builds export.
"""

from __future__ import annotations

from typing import NamedTuple

from pprofpy.arch import here
from pprofpy.budget import Budget
from pprofpy.collectors.unwind.ascent import Ascent, Step
from pprofpy.collectors.unwind.cfi import UnwindRow
from pprofpy.collectors.unwind.codemap import CodeMap
from pprofpy.collectors.unwind.dwarf import CfiError
from pprofpy.collectors.unwind.image import NativeFunction
from pprofpy.collectors.unwind.stackcopy import Chain, Ending, EndOfCopyError, StackCopy
from pprofpy.collectors.unwind.tails import Tails
from pprofpy.errors import ImplausibleTargetError

LOOP = "_PyEval_EvalFrameDefault"
_GREENLET = ("greenlet.", "_greenlet.")
"""Beginnings of the names of the library that puts stacks of several threads of control on one."""

_MAX_FRAMES = 1024
_STEPS_OF_LEARNING = 1024
"""What a budget pays to name a function, besides reading how to unwind from it."""

_MAX_PLACES = 200_000
"""So many instructions are known at a time."""

_NOWHERE = NativeFunction("", "", "[unknown]")
_MADE_AT_RUN_TIME = NativeFunction("[code made at run time]", "", "[unknown]")


class _Place(NamedTuple):
    """An instruction: which function it belongs to, and how to unwind from it.

    `leaf_row` holds where there is no table, for the innermost function alone.
    """

    function: int
    row: UnwindRow | None
    saves: frozenset[int]
    is_file: bool
    is_loop: bool
    is_greenlet: bool
    leaf_row: UnwindRow | None


class Unwinder:
    """Follows the stacks of one process.

    Args:
        code: Where its code is.
        functions: Every function that was met, appended to; shared by all processes of a recording.
        numbers: Function -> its index in `functions`.
        loops_by_name: Its evaluation loops are told by their name, and run one Python function each.
    """

    def __init__(
        self,
        code: CodeMap,
        functions: list[NativeFunction],
        numbers: dict[NativeFunction, int],
        *,
        loops_by_name: bool = False,
    ) -> None:
        self._code = code
        self._functions = functions
        self._numbers = numbers
        self._loops_by_name = loops_by_name
        self._places: dict[int, _Place] = {}
        self._tails = Tails()
        self._machine = here()
        self._code_addresses = (1 << self._machine.code_address_bits) - 1

    def refresh(self) -> None:
        """Look what code the process has now."""
        if self._code.refresh() or len(self._places) > _MAX_PLACES:
            self._places.clear()
            self._tails.clear()

    def follow(self, copy: StackCopy, budget: Budget) -> Chain:
        """The native functions of a stack.

        Args:
            copy: The stack.
            budget: Pays for what has to be read of the process's files.
        """
        ascent, ending = Ascent(copy, self._machine), Ending.BROKEN
        rest: tuple[int, ...] = ()
        try:
            ending, rest = self._follow(ascent, budget)
        except EndOfCopyError:
            ending = Ending.CUT if copy.is_cut else Ending.BROKEN
        except ImplausibleTargetError:
            ending = Ending.TOO_LONG
        except (CfiError, OSError):
            pass
        return self._placed(copy, (*(step.function for step in ascent.steps), *rest), ending)

    def _placed(self, copy: StackCopy, functions: tuple[int, ...], ending: Ending) -> Chain:
        """The chain of an ascent, with a place for each Python function if it is whole."""
        loops = sum(function < 0 for function in functions)
        groups = copy.groups[:loops]
        if self._loops_by_name:
            if loops == copy.python_frames + 1 and functions[0] < 0 and ending == Ending.AT_START:
                functions = (~functions[0], *functions[1:])  # just being entered, or left: it runs nothing
            groups = (1,) * min(loops, copy.python_frames)
        if ending == Ending.AT_START and sum(groups) != copy.python_frames:
            ending = Ending.UNPLACED
        if copy.marks and groups:
            groups = (groups[0] + copy.marks, *groups[1:])
        return Chain(functions, groups, ending)

    def _follow(self, ascent: Ascent, budget: Budget) -> tuple[Ending, tuple[int, ...]]:
        """Go up to where the thread began; return the ending, and the functions behind the last step."""
        copy, machine = ascent.copy, self._machine
        address, loops, is_leaf = copy.registers[machine.program_counter], 0, True
        for _ in range(_MAX_FRAMES):
            budget.step()
            if not address:
                return self._end(ascent, loops)
            if not is_leaf and (tail := self._tails.find(ascent, address, ascent.value(machine.stack_pointer), loops)):
                self._tails.learn(ascent, tail, tail.ending)
                return tail.ending, tail.functions
            place = self._places.get(address) or self._learn(address, budget)
            if place.is_greenlet and loops >= (copy.python_frames if self._loops_by_name else len(copy.loops)):
                return Ending.AT_START, ()  # what is below is the stack of whoever began this one
            step = ascent.begin(address, loops)
            row = place.row or (place.leaf_row if is_leaf else None)
            step.function = place.function
            if row is None:
                caller = self._across(ascent, place)
                if caller is None:
                    self._tails.learn(ascent, None, Ending.NO_TABLE)
                    return Ending.NO_TABLE, ()
                address, is_leaf = caller - 1, False
                continue
            frame = ascent.frame(row)
            if self._is_loop(place, step, frame, copy):
                step.function = ~place.function
                loops += 1
            if not self._is_frame(row, frame - step.stack_pointer, is_leaf=is_leaf):
                return Ending.BROKEN, ()
            address = ascent.climb(row, frame, place.saves) & self._code_addresses
            address -= not row.is_signal and address > 0
            is_leaf = False
        return Ending.BROKEN, ()

    def _end(self, ascent: Ascent, loops: int) -> tuple[Ending, tuple[int, ...]]:
        """Where the thread began; loops that were said to be on the way must have been met."""
        ending = Ending.AT_START if loops >= len(ascent.copy.loops) else Ending.BROKEN
        self._tails.learn(ascent, None, ending)
        return ending, ()

    def _is_loop(self, place: _Place, step: Step, frame: int, copy: StackCopy) -> bool:
        """Is this the frame of an evaluation loop?

        Raises:
            CfiError: One that was said to lie before has not been met.
        """
        if self._loops_by_name:
            return place.is_loop
        if step.loops >= len(copy.loops) or copy.loops[step.loops] >= frame:
            return False
        if copy.loops[step.loops] < step.stack_pointer:
            raise CfiError("an evaluation loop that was not met")
        return True

    def _across(self, ascent: Ascent, place: _Place) -> int | None:
        """Go from code without a table to its caller; return where it returns to. None if there is no sure way.

        What CPython's JIT has made has frame pointers from 3.15 on. They are believed as long as they lead past no
        loop whose place is known.
        """
        copy, step, pointer = ascent.copy, ascent.steps[-1], self._machine.frame_pointer
        if place.is_file or pointer is None or step.loops >= len(copy.loops):
            return None
        if not step.stack_pointer <= ascent.value(pointer) < copy.loops[step.loops]:
            return None
        step.function = self._number(_MADE_AT_RUN_TIME)
        return ascent.climb_by_pointer(pointer)

    def _is_frame(self, row: UnwindRow, size: int, *, is_leaf: bool) -> bool:
        """Can a frame be so large? Where calls leave the return address in a register, a leaf's may be empty, but all
        others have saved it."""
        if self._machine.return_address == self._machine.program_counter:
            return size > 0
        if is_leaf:
            return size >= 0
        return size > 0 and any(register == self._machine.return_address for register, _ in row.saved)

    def _number(self, function: NativeFunction) -> int:
        number = self._numbers.setdefault(function, len(self._functions))
        if number == len(self._functions):
            self._functions.append(function)
        return number

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
        saved = (register for register, _ in row.saved) if row else ()
        place = self._places[address] = _Place(
            self._number(function),
            row,
            frozenset((*saved, self._machine.stack_pointer)),
            bool(found),
            function.name == LOOP,
            function.path.rpartition("/")[2].startswith(_GREENLET),
            leaf_row,
        )
        return place
