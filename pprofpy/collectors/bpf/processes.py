"""Which processes a kernel-side recording watches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from pprofpy.collectors.bpf.loader import Program
from pprofpy.errors import TargetError


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom to watch; by default everybody.

    Attributes:
        pid: The process, as the host numbers it.
        children: Also those that it starts.
        named_later: Nobody at first: the process is named by `watch` when everything is in place.
    """

    pid: int = 0
    children: bool = False
    named_later: bool = False

    @property
    def is_everybody(self) -> bool:
        """Is the whole system watched?"""
        return not (self.pid or self.named_later)

    def check(self) -> None:
        """Raises TargetError if the process is gone."""
        if self.pid and not Path(f"/proc/{self.pid}").exists():
            raise _no_such_process(self.pid)

    def constants(self) -> dict[str, int]:
        """What `sched.h` must know of it. A single process is compared with a constant, which costs least."""
        if self.children or self.named_later:
            return {"TARGETS": 1}
        return {"TGID": self.pid} if self.pid else {}

    def watch(self, program: Program, pid: int) -> list[int]:
        """Enter a process (and what it has started, if children are wanted) into a program's list; returns them."""
        pids = family(pid) if self.children else [pid]
        if self.constants().get("TARGETS"):
            targets = program.table("targets", np.dtype("u4"), np.dtype("u1"))
            for member in pids:
                targets.put(member, 1)
        return pids


def family(pid: int) -> list[int]:
    """A process and those that it has started, as far as they run now.

    Raises:
        TargetError: There is no such process.
    """
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess as error:
        raise _no_such_process(pid) from error


def comm_text(comm: bytes) -> str:
    """A thread's name; the kernel promises no encoding."""
    return comm.split(b"\0")[0].decode("utf-8", "replace")


def _no_such_process(pid: int) -> TargetError:
    return TargetError(f"there is no process {pid}", "'ps -ef' lists those there are")
