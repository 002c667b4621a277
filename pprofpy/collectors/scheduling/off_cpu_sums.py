"""Off-CPU intervals by thread, stack, reason and waker, and the profile that they make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pprofpy.collectors.kernel.kallsyms import kernel_symbols, without_scheduler
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.pystacks.numbered import Numbered
from pprofpy.collectors.pystacks.walked import WalkedStacks
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import KERNEL_MAPPING, PYTHON_MAPPING, Frame, Function, Label, Mapping, Profile
from pprofpy.model.waits import OFF_CPU_TYPES, STILL_WAITING, WOKEN_BY
from pprofpy.session.sums import ThreadSums, Who
from pprofpy.text import without_numbers

_U4 = np.dtype("u4")
_STACK = np.dtype([("addresses", "u8", 127)])

_FIRST_SEEDED_STACK = 1 << 24
"""From this number on, `kernel_stack` means a stack that user space read when the recording began."""


class What(NamedTuple):
    """The key by which a thread's intervals are summed; `whole` is a stack with native functions, 0 for none."""

    state: str
    reason: str
    stack: int
    kernel_stack: int
    waker: str
    waker_stack: int
    whole: int = 0


class OffCpuSums:
    """Sums of intervals, in bounded memory, until they are taken as a profile.

    Args:
        program: Keeps the kernel's stacks.
        python: Spells out Python's; None: there are none.
        kernel_stacks: Show the kernel's stack on top of Python's; otherwise a frame with the reason stands for it.
        wakers: Put the stack of whoever ended a wait on top of it.

    Attributes:
        notes: What a reader should know of the names in kernel stacks.
    """

    def __init__(self, program: Program, python: WalkedStacks | None, *, kernel_stacks: bool, wakers: bool) -> None:
        self._kernel_stacks = program.table("kernel_stacks", _U4, _STACK)
        self._python = python
        self._shows_kernel = kernel_stacks
        self._shows_wakers = wakers
        self._seeded_kernel_stacks: Numbered[tuple[str, ...]] = Numbered(())
        self._sums: ThreadSums[What] = ThreadSums(_alike)
        self._wholes: Numbered[tuple[tuple[Frame, Mapping], ...]] = Numbered(())
        self.notes: tuple[str, ...] = ()

    def number_of_whole(self, stack: Sequence[tuple[Frame, Mapping]]) -> int:
        """Return a number for a stack with native functions, leaf-first; valid until the sums are taken."""
        return self._wholes.number(tuple(stack))

    def number_of_seeded(self, kernel_stack: tuple[str, ...]) -> int:
        """Return a number for a kernel stack that was read from outside: names of functions, leaf-first."""
        return _FIRST_SEEDED_STACK + self._seeded_kernel_stacks.number(kernel_stack)

    def add(self, who: Who, what: What, values: Sequence[int]) -> None:
        """Add intervals: how many, and how long they are altogether (nanoseconds)."""
        self._sums.add(who, what, values)

    def make_room(self) -> None:
        """Merge the sums of ended threads if there are too many."""
        self._sums.make_room()

    def take(self) -> Profile:
        """Return the sums as a profile, and begin anew."""
        profile = self._build()
        profile.period_type, profile.period = OFF_CPU_TYPES[0], 1
        self._sums.clear()
        self._wholes.forget()
        if self._python:
            self._python.end_window()
        return profile

    def _build(self) -> Profile:
        kernel_stacks = self._kernel_frames()
        builder = ProfileBuilder(OFF_CPU_TYPES, KERNEL_MAPPING)
        for (who, what), values in self._sums.items():
            kernel = kernel_stacks.get(what.kernel_stack, ()) if self._shows_kernel_stack(what) else ()
            stack = self._stack(builder, what, kernel)
            labels = [Label("state", what.state), Label("reason", what.reason)]
            labels += who.labels()
            labels += self._python.labels_of(what.stack) if self._python else ()
            if what.waker:
                labels.append(Label("waker", what.waker))
            builder.add_locations(stack, values, tuple(labels))
        return builder.build()

    def _stack(self, builder: ProfileBuilder, what: What, kernel: tuple[Frame, ...]) -> tuple[int, ...]:
        """The stack to show, leaf-first: Python's with the reason on top, or the kernel's; and the waker's above."""
        below = self._below_kernel(what)
        if not kernel:
            kernel = (_pseudo(what.reason),) if below else (_pseudo("kernel stack unknown"),)
        blocked = [builder.frame_location(frame) for frame in kernel]
        blocked += [builder.frame_location(frame, mapping) for frame, mapping in below]
        is_chain = self._shows_wakers and what.waker not in ("", STILL_WAITING) and what.state != "runqueue"
        if not is_chain:
            return tuple(blocked)
        waker = self._python.spelled(what.waker_stack) if self._python else ()
        above = [builder.frame_location(frame, PYTHON_MAPPING) for frame in waker]
        above = above or [builder.frame_location(_waker_frame(what.waker))]
        return (*above, builder.frame_location(WOKEN_BY), *blocked)

    def _below_kernel(self, what: What) -> Sequence[tuple[Frame, Mapping]]:
        if what.whole:
            return self._wholes[what.whole]
        python = self._python.spelled(what.stack) if self._python else ()
        return [(frame, PYTHON_MAPPING) for frame in python]

    def _kernel_frames(self) -> dict[int, tuple[Frame, ...]]:
        """The kernel stacks in use, by number, leaf-first."""
        wanted = {what.kernel_stack for (_, what), _ in self._sums.items() if self._shows_kernel_stack(what)}
        stacks = {
            number: tuple(
                kernel_symbols().name(address)
                for address in self._kernel_stacks.get(number)["addresses"].tolist()
                if address
            )
            for number in wanted
            if 0 <= number < _FIRST_SEEDED_STACK
        }
        if any(stacks.values()):
            self.notes = kernel_symbols().notes
        seeded = (number for number in wanted if number >= _FIRST_SEEDED_STACK)
        stacks |= {number: self._seeded_kernel_stacks[number - _FIRST_SEEDED_STACK] for number in seeded}
        return {
            number: tuple(Frame(Function(name)) for name in without_scheduler(stack))
            for number, stack in stacks.items()
            if stack
        }

    def _shows_kernel_stack(self, what: What) -> bool:
        """Also threads that blocked before the recording began have both, and show as the others do."""
        return self._shows_kernel or not (self._python and self._python.spelled(what.stack))


def _alike(what: What, alive: set[int]) -> What:
    """Return the key with a waker that has ended reduced to its name."""
    found = re.search(r"\((\d+)\)( in softirq)?$", what.waker)
    return what._replace(waker=without_numbers(what.waker)) if found and int(found[1]) not in alive else what


def _pseudo(text: str) -> Frame:
    """A frame that stands for no function."""
    return Frame(Function(f"[{text}]"))


def _waker_frame(waker: str) -> Frame:
    """Stands for a waker without a Python stack; threads of the same name are one."""
    name, is_thread, _ = waker.rpartition(" (")
    return _pseudo(f"thread {name}" if is_thread else waker)
