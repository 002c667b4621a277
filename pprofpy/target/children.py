"""Do a process's children work while it waits itself? Of a master process, it is they who are meant."""

from __future__ import annotations

from contextlib import suppress

from pprofpy.target import procfs
from pprofpy.target.process import Target, descendants_of
from pprofpy.units import format_duration

_WORTH_A_REMARK = 10
"""Children that use a tenth of a CPU, and more than their parent."""


class ChildrenAtWork:
    """What a process and its children do from now on."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._own_ns, self._children_ns = target.cpu_time_ns(), _children_ns(target.pid)

    def remark(self, elapsed_ns: int) -> str:
        """Tell of children that are busier than their parent, and of the command that records them; else empty.

        Args:
            elapsed_ns: The time since the beginning.
        """
        now_ns = _children_ns(self._target.pid)
        busy = {pid: spent for pid, ns in now_ns.items() if (spent := ns - self._children_ns.get(pid, 0)) > 0}
        own_ns, spent_ns = self._target.cpu_time_ns() - self._own_ns, sum(busy.values())
        if spent_ns <= max(own_ns, elapsed_ns // _WORTH_A_REMARK):
            return ""
        children = "a child" if len(busy) == 1 else f"{len(busy)} children"
        pid = self._target.pid
        return (
            f"{children} of process {pid} used {format_duration(spent_ns)} of CPU time meanwhile, it itself "
            f"{format_duration(max(own_ns, 0))}; to record the children, too: pprofpy cpu --pid {pid} --subprocesses"
        )


def _children_ns(pid: int) -> dict[int, int]:
    """The CPU time of each process that a process has started, directly or through others."""
    found: dict[int, int] = {}
    for child in descendants_of(pid):
        with suppress(OSError):
            found[child] = procfs.stat(child).cpu_ns
    return found
