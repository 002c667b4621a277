"""The ways from frames to their threads' roots that were gone before: most of a stack is what it was a sample ago.

A way is known by all that it depends on: the frame's instruction and stack pointer, the values of a few registers, and
some words of the stack, return addresses above all. Where these are the same it is the same way, whatever else has
changed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.unwind.ascent import Ascent, Step
from pprofpy.collectors.unwind.dwarf import CfiError
from pprofpy.collectors.unwind.stackcopy import Ending, EndOfCopyError, StackCopy

_MOST_WORDS = 400_000
"""Of a process's stacks, so many are remembered at most: some 10 MB."""

_REMEMBERED = frozenset({1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512})
"""Steps from the leaf on. The leaf itself is seldom twice at the same instruction."""

_WORD_BYTES = 8
_Place = tuple[int, int, int]
"""An instruction, a stack pointer, and where the copy of the stack ends."""


class Tail(NamedTuple):
    """A way from a frame on.

    Attributes:
        functions: As in a Chain.
        ending: Where it ends.
        loops: Where evaluation loops were said to be.
        needs: What registers held.
        places: Where the words of the stack are, in words from the end of the copy.
        content: What they held, as bytes.
    """

    functions: tuple[int, ...]
    ending: Ending
    loops: tuple[int, ...]
    needs: dict[int, int]
    places: NDArray[Any]
    content: bytes


class Tails:
    """What is remembered of one process."""

    def __init__(self) -> None:
        self._tails: dict[_Place, Tail] = {}
        self._words = 0

    def clear(self) -> None:
        """Forget all: there is other code."""
        self._tails.clear()
        self._words = 0

    def find(self, ascent: Ascent, address: int, stack_pointer: int, loops: int) -> Tail | None:
        """Return how an ascent goes on from here, if that is known.

        Args:
            ascent: As far as it has come.
            address, stack_pointer: Where it is.
            loops: How many evaluation loops it has met.
        """
        tail, words = self._tails.get((address, stack_pointer, ascent.copy.end)), ascent.copy.words
        if tail is None or words is None or ascent.copy.loops[loops:] != tail.loops:
            return None
        try:
            if words[tail.places].tobytes() != tail.content:
                return None
            is_same = all(ascent.value(register) == value for register, value in tail.needs.items())
        except (IndexError, CfiError, EndOfCopyError):
            return None
        return tail if is_same else None

    def learn(self, ascent: Ascent, found: Tail | None, ending: Ending) -> None:
        """Remember an ascent.

        Args:
            ascent: It has come to its end, or to where the rest was known.
            found: That rest.
            ending: Where it has ended.
        """
        if ascent.copy.words is None or len(ascent.steps) < 2:
            return
        if self._words > _MOST_WORDS:
            self.clear()
        needs, reads = (found.needs, _reads(found, ascent.copy.end)) if found else ({}, {})
        functions = found.functions if found else ()
        for number in range(len(ascent.steps) - 1, 0, -1):
            step = ascent.steps[number]
            needs = {register: value for register, value in needs.items() if register not in step.saves} | step.uses
            reads |= step.reads
            functions = (step.function, *functions)
            if number in _REMEMBERED:
                self._keep(step, ascent.copy, _tail(ascent.copy, step, functions, ending, needs, reads))

    def _keep(self, step: Step, copy: StackCopy, tail: Tail) -> None:
        place = step.address, step.stack_pointer, copy.end
        before = self._tails.get(place)
        self._tails[place] = tail
        self._words += len(tail.places) - (len(before.places) if before else 0)


def _reads(tail: Tail, end: int) -> dict[int, int]:
    """The words of the stack that a way depends on, by address."""
    addresses = tail.places * _WORD_BYTES + end
    return dict(zip(addresses.tolist(), np.frombuffer(tail.content, np.uint64).tolist(), strict=True))


def _tail(
    copy: StackCopy,
    step: Step,
    functions: tuple[int, ...],
    ending: Ending,
    needs: dict[int, int],
    reads: dict[int, int],
) -> Tail:
    places = (np.fromiter(reads, np.int64, len(reads)) - copy.end) // _WORD_BYTES
    content = np.fromiter(reads.values(), np.uint64, len(reads)).tobytes()
    return Tail(functions, ending, copy.loops[step.loops :], needs, places, content)
