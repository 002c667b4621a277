"""What recorders at the scheduler's tracepoints share: whom they watch, with which stacks, and what they lose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pprofpy import __version__
from pprofpy.collectors.kernel.label_options import NO_LABELS, LabelOptions
from pprofpy.collectors.kernel.losses import losses
from pprofpy.collectors.kernel.maps import MapTable
from pprofpy.collectors.kernel.recorder import KernelRecorder
from pprofpy.collectors.kernel.scheduler import scheduler_constants
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.pystacks.records import python_constants
from pprofpy.collectors.pystacks.walked import WalkedStacks
from pprofpy.model.profile import Collection

_MOST_THREADS = 65_536
_NATIVE = "native_"
"""So begin the names of losses that leave an interval without its native functions."""


class SwitchRecorder(KernelRecorder):
    """A recorder of the threads of a process, or of all; with Python stacks where they are wanted and can be had.

    Args:
        scope: Whom to watch.
        walks: Walk Python stacks; not of everybody.
        labels: What else to label them with.

    Attributes:
        lost: The names of losses, in the order of the enum in the program.
        wakeups: Tracepoint -> function, of those that tell of wake-ups.
    """

    _threads: MapTable
    lost: ClassVar[tuple[str, ...]]
    wakeups: ClassVar[Mapping[str, str]]

    def __init__(self, scope: Scope, *, walks: bool, labels: LabelOptions = NO_LABELS) -> None:
        super().__init__()
        self._scope = scope
        self._walks = walks
        self._labels = labels
        self._pid = scope.pid
        self._python: WalkedStacks | None = None

    def switch_constants(self) -> dict[str, int]:
        """Return what switches.h must know, and what it needs.

        Raises:
            NotPossibleError: This kernel does not tell.
        """
        python = python_constants(self._labels) if self._walks else {}
        return scheduler_constants() | self._scope.parameters() | python

    def switch_sizes(self) -> dict[str, int]:
        """Return the sizes of its maps, where they depend on the scope."""
        python = self._labels.sizes() if self._walks else {}
        return python | ({"threads": _MOST_THREADS} if self._scope.is_everybody else {})

    def open_stacks(self) -> None:
        """Have Python stacks walked, if they are wanted."""
        if self._walks:
            self._python = WalkedStacks(self.program, self._scope, self._labels)
            self.owned.callback(self._python.close)

    def watch_family(self, pid: int) -> list[int]:
        """Watch a process, and what it has started if children are wanted; return them all.

        Python first: no switch is then without its stack.
        """
        self._pid = pid
        if self._python:
            self._python.watch(pid)
        members = self._scope.watch(self.program, pid)
        if self._python:
            self._python.watch_others(members)
        return members

    def enter(self, pid: int) -> None:
        """Watch a process of a control group. Python first, as above."""
        if self._python:
            self._python.enter(pid)
        self._scope.enter(self.program, pid)

    def leave(self, pid: int) -> None:
        """Watch it no more; what its threads are at does not count."""
        self._scope.leave(self.program, pid)
        if self._python:
            self._python.leave(pid)
        tids, threads = self._threads.items()
        self._threads.clear(tids[(threads["track"]["tgid"] == pid) & (threads["track"]["is_dead"] == 0)])

    def followed(self) -> set[int]:
        """As a recorder says it."""
        return self._scope.followed(self.program)

    def load_functions(self) -> None:
        """Load what `attach` attaches: that takes a while, and the functions are to be attached close together."""
        for function in ("on_rename", *self.wakeups.values(), "on_switch"):
            self.program.load_function(function)

    def attach(self) -> None:
        """Let the kernel call the program. Wake-ups first: a switch then never lacks the wake-up before it."""
        if self._scope.children:
            self.program.attach_raw("sched_process_fork", "on_fork")
        self.program.attach_raw("task_rename", "on_rename")
        for tracepoint, function in self.wakeups.items():
            self.program.attach_raw(tracepoint, function)
        self.program.attach_raw("sched_switch", "on_switch")

    def memory(self) -> str:
        """Return how much memory the recording uses, as text."""
        return self.program.memory(self._python.count if self._python else 0)

    def collected(self) -> Collection:
        """How complete the recording is."""
        lost, python = losses(self.program, self.lost), self._python
        return Collection(
            engine=f"pprofpy {__version__}, eBPF at the scheduler's tracepoints",
            target=f"pid {self._pid}" if self._pid else "all processes",
            dropped=sum(count for name, count in lost.items() if not name.startswith(_NATIVE)),
            truncated=python.truncated if python else -1,
            errors=python.errors if python else -1,
            losses=lost | (python.losses() if python else {}),
            notes=python.notes() if python else (),
        )
