"""Numbers for stacks: one for all that read the same."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

_Stack = TypeVar("_Stack", bound=tuple[Any, ...])


class Numbered(Generic[_Stack]):
    """Stacks by number. 0 is the empty one.

    What threads did is summed up by these numbers: the kernel may know thousands of stacks that read the same, since it
    tells code by its address.
    """

    def __init__(self, nothing: _Stack) -> None:
        self._numbers: dict[_Stack, int] = {nothing: 0}
        self._stacks: list[_Stack] = [nothing]

    def number(self, stack: _Stack) -> int:
        """The number of a stack; a new one if it is new."""
        number = self._numbers.setdefault(stack, len(self._stacks))
        if number == len(self._stacks):
            self._stacks.append(stack)
        return number

    def __getitem__(self, number: int) -> _Stack:
        return self._stacks[number]
