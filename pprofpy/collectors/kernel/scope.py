"""Which processes a kernel-side recording watches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pprofpy.collectors.kernel.maps import MapTable
from pprofpy.collectors.kernel.program import Program
from pprofpy.errors import TargetError
from pprofpy.target import descendants_of, procfs
from pprofpy.text import text_of


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom to watch; by default everybody.

    Attributes:
        pid: The process, as the host numbers it.
        children: Also those that it starts.
        named_later: Nobody at first: a command that we start, named by `watch` when everything is in place.
        several: Nobody at first: those that `watch` names one by one.
    """

    pid: int = 0
    children: bool = False
    named_later: bool = False
    several: bool = False

    @property
    def is_everybody(self) -> bool:
        """Is the whole system watched?"""
        return not (self.pid or self.named_later or self.several)

    def check(self) -> None:
        """See that the process is there.

        Raises:
            TargetError: It is not.
        """
        if self.pid and not procfs.exists(self.pid):
            raise TargetError(f"there is no process {self.pid}", "'ps -ef' lists those there are")

    @property
    def is_listed(self) -> bool:
        """Are those to watch in the program's list? A single one is compared with a number, which costs least."""
        return self.children or self.named_later or self.several

    def parameters(self) -> dict[str, int]:
        """What `sched.h` must know of it."""
        return {"TARGETS": int(self.is_listed), "TGID": 0 if self.is_listed else self.pid}

    def members(self, pid: int) -> list[int]:
        """A process, and all that it has started, if children are wanted."""
        return [pid, *descendants_of(pid)] if self.children else [pid]

    def watch(self, program: Program, pid: int) -> list[int]:
        """Enter a process (and what it has started, if children are wanted) into a program's list; returns them."""
        if not self.is_listed:
            return [pid]
        entered: list[int] = []
        # Again until nobody is new: a child may be born of one that is not entered yet.
        while fresh := [member for member in self.members(pid) if member not in entered]:
            for member in fresh:
                self.enter(program, member)
            entered += fresh
        return entered

    def enter(self, program: Program, pid: int) -> None:
        """Enter a process alone into a program's list."""
        self._targets(program).put(pid, 1)

    def leave(self, program: Program, pid: int) -> None:
        """Take a process off a program's list: it is none of the group's any more."""
        self._targets(program).delete(np.array([pid], "u4"))

    def followed(self, program: Program) -> set[int]:
        """Return the processes on a program's list, on which the kernel itself has put some."""
        return set(self._targets(program).items()[0].tolist())

    @staticmethod
    def _targets(program: Program) -> MapTable:
        return program.table("targets", np.dtype("u4"), np.dtype("u1"))


def comm_text(comm: bytes) -> str:
    """A thread's name; the kernel promises no encoding."""
    return text_of(comm.split(b"\0")[0])
