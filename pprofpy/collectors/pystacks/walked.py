"""The Python stacks of a recording that goes on without them where they cannot be had.

Processes whose Python cannot be read in the kernel, or that are no Python, are watched all the same. Stacks come from
the kernel (`pystacks.py`), or from outside for threads that did not move.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.pystacks.stacks import WITHOUT_PYTHON, PythonStacks, python_constants
from pprofpy.errors import NotPossibleError, PprofpyError
from pprofpy.model.profile import Stack
from pprofpy.target import open_target

_PATIENCE_NS = 5_000_000_000
"""A process that was only just started may take so long until its Python can be read."""


def walk_constants() -> dict[str, int]:
    """What a program that includes python.h under `#ifdef PYTHON` must know."""
    return {"PYTHON": 1} | python_constants()


class WalkedStacks:
    """The Python stacks of the processes in a scope.

    Args:
        program: Includes python.h.
        scope: Whom it watches.

    Attributes:
        problem: Why the process that was named has no Python stacks; empty if it has.
    """

    def __init__(self, program: Program, scope: Scope) -> None:
        self.problem = ""
        self._is_mistaken = False
        self._scope = scope
        self._named = scope.pid
        self._stacks = PythonStacks(program, children=scope.children)
        self._starting: dict[int, int] = {}
        self._known: dict[int, Runtime] = {}

    def watch(self, pid: int) -> None:
        """Have the stacks of a process walked."""
        self._named = pid
        self._try_to_watch(pid, 0 if not self._scope.named_later else time.monotonic_ns() + _PATIENCE_NS)

    def watch_others(self, pids: Iterable[int]) -> None:
        """And those of the ones that it has started before, where they can be."""
        for pid in pids:
            if pid not in self._stacks.runtimes and pid != self._named:
                self._try_to_watch(pid, time.monotonic_ns() + _PATIENCE_NS)

    def _try_to_watch(self, pid: int, deadline_ns: int) -> None:
        """What is only just starting is tried again at each poll, up to its deadline."""
        self._starting.pop(pid, None)
        try:
            self._stacks.watch_one(open_target(pid))
        except PprofpyError as error:
            if time.monotonic_ns() < deadline_ns:
                self._starting[pid] = deadline_ns
            elif pid == self._named:
                self.problem = error.message

    @property
    def runtimes(self) -> dict[int, Runtime]:
        """pid -> interpreter, of all processes that are or were walked."""
        return self._stacks.runtimes

    def runtime(self, pid: int) -> Runtime | None:
        """The Python of a process, if its stacks are walked."""
        return self._stacks.runtimes.get(pid)

    def poll(self) -> list[int]:
        """Take in what is new; returns the processes whose Python can be read now, and could not before."""
        for pid, deadline_ns in list(self._starting.items()):
            self._try_to_watch(pid, deadline_ns)
            if pid == self._named and pid in self._stacks.runtimes:
                self.watch_others(self._scope.members(pid))
        try:
            self._stacks.poll()
        except NotPossibleError as error:
            self.problem, self._is_mistaken = error.message, True
        runtimes = dict(self._stacks.runtimes)
        fresh = [pid for pid, runtime in runtimes.items() if self._known.get(pid) is not runtime]
        self._known = runtimes
        return fresh

    def add(self, stack: Stack) -> int:
        """An id for a stack that was read from outside; 0 for none."""
        return self._stacks.add(stack)

    def frames(self, stack_id: int) -> Stack:
        """A stack, leaf-first; `()` if there is none."""
        return self.spelled(self.number(stack_id))

    def number(self, stack_id: int) -> int:
        """A number for what a stack reads as; 0 for no stack."""
        return self._stacks.number(stack_id)

    def spelled(self, number: int) -> Stack:
        """The stack with such a number, leaf-first."""
        return () if self._is_mistaken else self._stacks.spelled(number)

    def make_room(self, *in_use: Iterable[int]) -> None:
        """See PythonStacks."""
        self._stacks.make_room(*in_use)

    @property
    def count(self) -> int:
        """How many stacks are in memory."""
        return len(self._stacks)

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of Python stacks that are missing."""
        return (f"No Python stacks: {self.problem}.",) if self.problem else ()

    def losses(self) -> dict[str, int]:
        """How many Python stacks are missing or incomplete; threads that run no Python have the kernel's."""
        found = {} if self.problem else self._stacks.losses()
        return {name: count for name, count in found.items() if name not in WITHOUT_PYTHON}

    @property
    def truncated(self) -> int:
        """How many stacks are cut off at their root."""
        return self._stacks.truncated

    @property
    def errors(self) -> int:
        """How many walks failed, wholly or in part."""
        return self._stacks.failed

    def close(self) -> None:
        """Let go of the processes."""
        self._stacks.close()
