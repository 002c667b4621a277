"""The Python stacks of a recording that goes on without them where they cannot be had.

Processes whose Python cannot be read in the kernel, or that are no Python, are watched all the same. Stacks come from
the kernel (`stacks.py`), or from outside for threads that did not move.
"""

from __future__ import annotations

from collections.abc import Iterable

from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.kernel.label_options import NO_LABELS, LabelOptions
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.pystacks.missed import WITHOUT_PYTHON
from pprofpy.collectors.pystacks.processes import Process
from pprofpy.collectors.pystacks.stacks import PythonStacks
from pprofpy.errors import NotPossibleError, NotStartedError, PprofpyError
from pprofpy.model.profile import LabelSet, Stack
from pprofpy.target.process import NotPythonError


class WalkedStacks:
    """The Python stacks of the processes in a scope.

    Args:
        program: Includes python.h.
        scope: Whom it watches.
        labels: What else to label stacks with.
    """

    def __init__(self, program: Program, scope: Scope, labels: LabelOptions = NO_LABELS) -> None:
        self._mistake = ""
        self._problems: dict[int, str] = {}
        self._scope = scope
        self._named = {scope.pid} - {0}
        self._stacks = PythonStacks(program, children=scope.children, labels=labels)
        self._processes = self._stacks.processes
        self._seen = 0

    def watch(self, pid: int) -> None:
        """Have the stacks of a process walked."""
        self._named.add(pid)
        self._note(pid, self._processes.watch_soon(pid, is_patient=self._scope.named_later))

    def enter(self, pid: int) -> None:
        """Have the stacks of a process of the group walked, if it is Python."""
        self._named.add(pid)
        self._processes.enter(pid)

    def leave(self, pid: int) -> None:
        """Have its stacks walked no more."""
        self._named.discard(pid)
        self._problems.pop(pid, None)
        self._processes.leave(pid)

    def _note(self, pid: int, error: PprofpyError | None) -> None:
        """Note why a process that was named has no stacks; of a launcher, its children are meant."""
        if error and not (self._scope.children and isinstance(error, NotPythonError | NotStartedError)):
            self._problems[pid] = error.message

    @property
    def problem(self) -> str:
        """Why none of the processes that were named has Python stacks; empty if one has."""
        if self._mistake or len(self._problems) < len(self._named):
            return self._mistake
        return next(iter(self._problems.values()), "")

    def watch_others(self, pids: Iterable[int]) -> None:
        """Have those of the processes walked that it has started before, where they can be."""
        for pid in pids:
            if pid not in self._named and not self._processes.get(pid):
                self._processes.watch_soon(pid, is_patient=True)

    @property
    def runtimes(self) -> dict[int, Runtime]:
        """See `Processes.runtimes`."""
        return self._processes.runtimes

    def runtime(self, pid: int) -> Runtime | None:
        """Return the Python of a process, if its stacks are walked."""
        process = self._processes.get(pid)
        return process.runtime if process else None

    def poll(self) -> list[int]:
        """Take in what is new; return the processes whose Python can be read now, and could not before."""
        try:
            given_up = self._stacks.poll()
        except NotPossibleError as error:
            self._mistake = error.message
        else:
            for pid in self._named & given_up.keys():
                self._note(pid, given_up[pid])
        fresh = self._take_fresh()
        for pid in self._named & {one.runtime.pid for one in fresh}:
            self.watch_others(self._scope.members(pid))
        fresh += self._take_fresh()
        return [one.runtime.pid for one in fresh]

    def _take_fresh(self) -> list[Process]:
        fresh = self._processes.since(self._seen)
        self._seen = fresh[-1].number if fresh else self._seen
        return fresh

    def add(self, stack: Stack, labels: LabelSet) -> int:
        """An id for a stack that was read from outside; 0 for none."""
        return self._stacks.add(stack, labels)

    def frames(self, stack_id: int) -> Stack:
        """A stack, leaf-first; `()` if there is none."""
        return self.spelled(self.number(stack_id))

    def number(self, stack_id: int) -> int:
        """A number for what a stack reads as; 0 for no stack."""
        return self._stacks.number(stack_id)

    def spelled(self, number: int) -> Stack:
        """The stack with such a number, leaf-first."""
        return () if self._mistake else self._stacks.spelled(number)

    def labels_of(self, number: int) -> LabelSet:
        """The labels of what has such a number."""
        return () if self._mistake else self._stacks.labels_of(number)

    def make_room(self, *in_use: Iterable[int]) -> None:
        """See PythonStacks."""
        self._stacks.make_room(*in_use)

    def end_window(self) -> None:
        """See PythonStacks."""
        self._stacks.end_window()

    @property
    def count(self) -> int:
        """How many stacks are in memory."""
        return len(self._stacks)

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of Python stacks that are missing."""
        found = [self.problem] if self.problem else self._problems.values()
        return (*(f"No Python stacks: {text}." for text in found), *self._stacks.label_notes())

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
