"""The threads of a process that are blocked already when a recording begins: no switch will tell when and where.

Source: /proc/PID/task/TID: stat, syscall, stack; the process's memory for Python's stacks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pprofpy.collectors.cpython.blocked_stacks import blocked_stacks
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.kernel.reasons import reason_of
from pprofpy.collectors.pystacks.outside_labels import labels_from_outside
from pprofpy.errors import PprofpyError
from pprofpy.model.profile import Frame, LabelSet
from pprofpy.system.blocking import BlockedError, bounded
from pprofpy.target import procfs
from pprofpy.target.procfs import SystemCall

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
        labels: What else it is labelled with.
    """

    tid: int
    comm: bytes
    born_ns: int
    is_uninterruptible: bool
    reason: int
    kernel_stack: tuple[str, ...]
    python_stack: tuple[Frame, ...]
    labels: LabelSet


def blocked_threads(pid: int, runtime: Runtime | None, wanted: LabelOptions) -> Iterator[BlockedThread]:
    """Those of a process right now. They may go on at any moment: ask the kernel afterwards who has.

    Args:
        pid: The process.
        runtime: Its Python, if known.
        wanted: What else to label the threads with.
    """
    calls = {tid: call for tid in procfs.tids(pid) if (call := _system_call(pid, tid))}
    stacks: dict[int, tuple[Frame, ...]] = {}
    labels: dict[int, LabelSet] = {}
    gil = 0
    if runtime:
        pointers = {tid: call.stack_pointer for tid, call in calls.items()}
        with suppress(PprofpyError, BlockedError):
            found, gil = bounded(f"process {pid}", lambda: (blocked_stacks(runtime, pointers), runtime.main_gil()))
            stacks = {tid: stack.frames for tid, stack in found.items()}
            labels = bounded(f"process {pid}", lambda: labels_from_outside(runtime, wanted, found))
    for tid, call in calls.items():
        with suppress(OSError):
            stat, stack = procfs.stat(pid, tid), stacks.get(tid, ())
            if stat.state in _BLOCKED:
                yield BlockedThread(
                    tid=tid,
                    comm=procfs.comm(pid, tid),
                    born_ns=stat.started_ticks * _TICK_NS - _asleep_ns(),
                    is_uninterruptible=stat.state == "D",
                    reason=reason_of(call, pid, tid, stat.state, gil, runs_python=bool(stack)),
                    kernel_stack=_kernel_stack(pid, tid),
                    python_stack=stack,
                    labels=labels.get(tid, ()),
                )


def _system_call(pid: int, tid: int) -> SystemCall | None:
    """What a thread is blocked in; None if it runs, or has ended."""
    try:
        return procfs.system_call(pid, tid)
    except OSError:
        return None


def _kernel_stack(pid: int, tid: int) -> tuple[str, ...]:
    """What the kernel does for a thread, leaf-first.

    The whole stack is for CAP_SYS_ADMIN alone. Without it, only the function that waits is known.
    """
    with suppress(PermissionError):
        return procfs.kernel_stack(pid, tid)
    return tuple(filter(None, (procfs.wait_channel(pid, tid),)))


def _asleep_ns() -> int:
    """How long the machine was suspended: /proc counts that, the monotonic clock does not."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
