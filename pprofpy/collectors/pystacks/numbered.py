"""Numbers for stacks: one for all that read the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

from pprofpy.model.profile import LabelSet, Stack

_Stack = TypeVar("_Stack", bound=tuple[Any, ...])


class Walked(NamedTuple):
    """What a stack of Python's reads as: its frames, leaf-first, and its labels."""

    frames: Stack
    labels: LabelSet


NOTHING = Walked((), ())


class Numbered(Generic[_Stack]):
    """Stacks by number. 0 is the empty one.

    What threads did is summed up by these numbers: the kernel may know thousands of stacks that read the same, since it
    tells code by its address.
    """

    def __init__(self, nothing: _Stack) -> None:
        self._numbers: dict[_Stack, int] = {nothing: 0}
        self._stacks: dict[int, _Stack] = {0: nothing}
        self._older: dict[int, _Stack] = {}
        self._next = 1

    def number(self, stack: _Stack) -> int:
        """The number of a stack; a new one if it is new, or forgotten."""
        number = self._numbers.get(stack)
        if number is None:
            number = self._numbers[stack] = self._next
            self._next += 1
        self._stacks[number] = stack
        return number

    def forget(self, keep: Iterable[int] = ()) -> None:
        """Forget the numbers that were not given out since the last time that this was called, but for some.

        They are not used again.
        """
        kept = {number: self[number] for number in (0, *keep)}
        self._older, self._stacks = self._stacks, kept
        self._numbers = {stack: number for known in (self._older, kept) for number, stack in known.items()}

    def __getitem__(self, number: int) -> _Stack:
        return self._stacks[number] if number in self._stacks else self._older[number]

    def __contains__(self, number: int) -> bool:
        return number in self._stacks or number in self._older

    def __len__(self) -> int:
        """How many were given out since `forget` was called last."""
        return len(self._stacks)
