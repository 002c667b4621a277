"""What the kernel has copied of a thread (`native.h`), and what is made of it: a chain of native functions."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.unwind.dwarf import CfiError

PAGE_BYTES = 4096
_WORD = struct.Struct("<Q")
_WORD_BYTES = 8


class Ending(IntEnum):
    """Where following a stack came to its end."""

    AT_START = 0
    """Where the thread began."""

    CUT = 1
    """At the end of what was copied, which is not the stack's."""

    NO_TABLE = 2
    """In code without unwinding tables."""

    BROKEN = 3
    """Where something made no sense."""

    TOO_LONG = 4
    """Where reading the process's files took too long."""

    UNPLACED = 5
    """Where the thread began, but there are more Python functions than loops that could run them."""


class Chain(NamedTuple):
    """The native functions of a stack.

    Attributes:
        functions: Leaf-first, as indices into `Unwinder.functions`. `~index` is an evaluation loop, for which the
            Python functions that it runs stand.
        groups: How many Python functions each of these loops runs, leaf-first; marks on top of them included.
        ending: How it ends.
    """

    functions: tuple[int, ...]
    groups: tuple[int, ...]
    ending: Ending

    @property
    def is_whole(self) -> bool:
        """Was it followed to where the thread began, with a place for each Python function?"""
        return self.ending == Ending.AT_START


NOTHING = Chain((), (), Ending.BROKEN)
"""Of a stack of which nothing is known."""


class EndOfCopyError(Exception):
    """An address is beyond what was copied of a stack."""


@dataclass(frozen=True)
class StackCopy:
    """What was copied of a thread.

    Attributes:
        registers: By their number in unwinding tables.
        start: The address of what was copied of its stack: a little below the stack pointer, where functions keep
            values, too.
        content: What was copied.
        absent: Which of its pages could not be read: a bit each, from the first on.
        is_cut: There is more of it.
        loops: An address within the frame of each evaluation loop, leaf-first.
        groups: How many Python functions each of them runs.
        python_frames: How many Python functions there are.
        marks: How many frames, on top of these, stand for no function.
    """

    registers: tuple[int, ...]
    start: int
    content: bytes
    absent: int = 0
    is_cut: bool = False
    loops: tuple[int, ...] = ()
    groups: tuple[int, ...] = ()
    python_frames: int = 0
    marks: int = 0

    @property
    def end(self) -> int:
        """The first address that is not in the copy."""
        return self.start + len(self.content)

    @cached_property
    def words(self) -> NDArray[Any] | None:
        """All of it, in words; None if it is not whole, or does not consist of words."""
        return None if self.absent or len(self.content) % _WORD_BYTES else np.frombuffer(self.content, "<u8")

    def word(self, address: int) -> int:
        """8 bytes of the stack.

        Raises:
            CfiError: They are not of this stack, or could not be read.
            EndOfCopyError: They were not copied.
        """
        offset = address - self.start
        if offset < 0:
            raise CfiError("a frame that lies before the stack's leaf")
        if offset + _WORD_BYTES > len(self.content):
            raise EndOfCopyError
        if self.absent and self.absent >> offset // PAGE_BYTES & 1:
            raise CfiError("a frame in memory that could not be read")
        return int(_WORD.unpack_from(self.content, offset)[0])
