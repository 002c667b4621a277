"""The threads of a process that are blocked already when a recording begins: no switch will tell when and where.

Source: /proc/PID/task/TID: stat, syscall, stack; the process's memory for Python's stacks.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pprofpy.collectors.bpf.reasons import Call, reason_of
from pprofpy.collectors.cpython.blocked import blocked_stacks
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.errors import PprofpyError
from pprofpy.profile import Frame

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_BLOCKED = "SDTt"


@dataclass(frozen=True, slots=True)
class BlockedThread:
    """A thread that waits.

    Attributes:
        tid: Which.
        comm: Its name, as the kernel has it.
        born_ns: When it began to exist, on the monotonic clock.
        is_uninterruptible: The kernel calls its sleep so.
        reason: An index into `reasons.REASONS`.
        kernel_stack: Names of functions, leaf-first.
        python_stack: Leaf-first; empty if it runs no Python, or that is unknown.
    """

    tid: int
    comm: bytes
    born_ns: int
    is_uninterruptible: bool
    reason: int
    kernel_stack: tuple[str, ...]
    python_stack: tuple[Frame, ...]


def blocked_threads(pid: int, runtime: Runtime | None) -> Iterator[BlockedThread]:
    """Those of a process right now. They may go on at any moment: ask the kernel afterwards who has.

    Args:
        pid: The process.
        runtime: Its Python, if known.
    """
    calls = {task: call for task in Path(f"/proc/{pid}/task").glob("*") if (call := Call.of(task))}
    stacks: dict[int, tuple[Frame, ...]] = {}
    gil = 0
    if runtime:
        with suppress(PprofpyError):
            stacks = blocked_stacks(runtime, {int(task.name): call.stack_pointer for task, call in calls.items()})
            gil = runtime.main_gil()
    for task, call in calls.items():
        with suppress(OSError, IndexError):
            fields = (task / "stat").read_text(errors="replace").rpartition(")")[2].split()
            state, born_ticks, stack = fields[0], int(fields[19]), stacks.get(int(task.name), ())
            if state in _BLOCKED:
                yield BlockedThread(
                    tid=int(task.name),
                    comm=(task / "comm").read_bytes().rstrip(b"\n"),
                    born_ns=born_ticks * _TICK_NS - _asleep_ns(),
                    is_uninterruptible=state == "D",
                    reason=reason_of(call, task, state, gil, runs_python=bool(stack)),
                    kernel_stack=tuple(re.findall(r"\] ([\w.]+)\+", (task / "stack").read_text())),
                    python_stack=stack,
                )


def _asleep_ns() -> int:
    """How long the machine was suspended: /proc counts that, the monotonic clock does not."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
