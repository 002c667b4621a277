"""What keeps a process from running, or its stacks from being whole, whoever records it: told with each recording."""

from __future__ import annotations

from collections.abc import Sequence

from pprofpy.target import Target
from pprofpy.target.compiled import NUITKA_NOTE, is_by_nuitka
from pprofpy.target.freezer import frozen_by
from pprofpy.target.throttling import quotas, throttling
from pprofpy.text import counted
from pprofpy.units import format_duration

_STOPPED = {"T": "is stopped", "t": "is stopped by a debugger"}
"""By the state that the kernel gives a process."""


def standstill(target: Target) -> str:
    """Why nothing of a process runs now, as a sentence with what to do; empty if it can run."""
    state = target.state()
    if state in _STOPPED:
        remedy = f"let it go on: kill -CONT {target.pid}" if state == "T" else "end the debugger, or let it go on"
        return f"Process {target.pid} {_STOPPED[state]} (state {state}): nothing of it runs; {remedy}."
    if file := frozen_by(target.pid):
        return f"Process {target.pid} is frozen (by {file}): nothing of it runs; thaw it."
    return ""


class Circumstances:
    """Of one recording, from now on.

    Args:
        targets: The processes that are recorded.

    Attributes:
        remarks: What is known as it begins.
    """

    def __init__(self, targets: Sequence[Target]) -> None:
        self._quotas = {folder: before for target in targets for folder, before in quotas(target.pid).items()}
        compiled = NUITKA_NOTE if any(map(is_by_nuitka, targets)) else ""
        self.remarks = tuple(filter(None, (*map(standstill, targets), compiled)))

    def notes(self) -> tuple[str, ...]:
        """The remarks, and what has happened since."""
        return (*self.remarks, *self._throttled())

    def _throttled(self) -> list[str]:
        texts = []
        for folder, before in self._quotas.items():
            now = throttling(folder) or before
            if count := now.count - before.count:
                waited = format_duration(now.total_ns - before.total_ns)
                texts.append(
                    f"A CPU quota (of {folder}) throttled its processes {counted(count, 'time')}, {waited} on "
                    "all CPUs together: their threads waited for a CPU (run queue) meanwhile."
                )
        return texts
