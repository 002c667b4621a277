"""What programs must know to number threads and processes as our own pid namespace does (`ids.h`).

Source: struct pid, struct upid and struct pid_namespace of the kernel; man 7 pid_namespaces.
"""

from __future__ import annotations

import os
import platform
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from pprofpy.collectors.kernel.btf import Btf
from pprofpy.collectors.kernel.program import load
from pprofpy.collectors.kernel.source import ProbeSource
from pprofpy.collectors.kernel.types import kernel_types
from pprofpy.errors import NotPossibleError
from pprofpy.target import procfs

OUTSIDE = 0xFFFFFFFF
"""Instead of its number, of a thread that our pid namespace does not show, where it is told from the idle task."""

_WHEREABOUTS = np.dtype([("level", "u8"), ("namespace", "u8"), ("inode", "u4"), ("tid", "u4"), ("tgid", "u8")])
SOURCE = ProbeSource("whereabouts.bpf.c", {"whereabouts": _WHEREABOUTS})

_PID_BYTES, _POINTER_BYTES, _PIDTYPE_TGID = 4, 8, 1
_MOST_LEVELS = 32
"""MAX_PID_NS_LEVEL of the kernel."""


def ids_values() -> dict[str, int]:
    """The parameters of ids.h.

    Raises:
        NotPossibleError: The kernel's structures are not as we know them.
    """
    if procfs.is_host_pid_namespace():
        return dict.fromkeys(_IN_NAMESPACES, 0) | _find_numbers(kernel_types())
    level, namespace = _whereabouts()
    return {**_offsets(), "PID_LEVEL": level, "PID_NAMESPACE": namespace}


def ids_sizes() -> dict[str, int]:
    """The sizes of the maps of ids.h."""
    return {"ids_by_task": 0} if procfs.is_host_pid_namespace() else {}


@cache
def _whereabouts() -> tuple[int, int]:
    """How deep our pid namespace is below the host's, and its address in the kernel.

    A program in the kernel says so of the thread that runs it, and with it what we know ourselves: the inode of the
    namespace, the numbers of the thread and of the process.

    Raises:
        NotPossibleError: These are not right, so what it has read is something else.
    """
    values = {**_offsets(_find_inode), "PID_LEVEL": 0, "PID_NAMESPACE": 0}
    with load(SOURCE, values, {"ids_by_task": 0}) as program:
        program.run_once("on_ask")
        found = program.table("whereabouts", np.dtype("u4"), _WHEREABOUTS).get(0)
    told = int(found["inode"]), int(found["tid"]), int(found["tgid"])
    known = Path("/proc/self/ns/pid").stat().st_ino, threading.get_native_id(), os.getpid()
    level, namespace = int(found["level"]), int(found["namespace"])
    if told != known or not 0 < level <= _MOST_LEVELS or not namespace:
        raise _unknown(f"what it says of us is {told}, not {known}")
    return level, namespace


def _offsets(*others: Callable[[Btf], dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        for find_out in (_find_numbers, _find_numbers_in_namespaces, *others):
            found |= find_out(kernel_types())
        return found
    except KeyError as error:
        raise _unknown(f"it has no {error.args[0]}") from error


def _unknown(why: str) -> NotPossibleError:
    return NotPossibleError(
        f"we are in a pid namespace of our own, whose numbers Linux {platform.release()} does not tell as we know it: "
        f"{why}",
        "run pprofpy on the host, or start the container with --pid=host; please report it with 'uname -a'",
    )


def _find_numbers(types: Btf) -> dict[str, int]:
    pid = types.offset("task_struct", "pid")
    if types.offset("task_struct", "tgid") != pid + _PID_BYTES:
        raise NotPossibleError(
            f"in Linux {platform.release()} a task's tgid does not follow its pid: tasks as pprofpy knows none",
            "please report it with the output of 'uname -a'",
        )
    return {"TASK_PID": pid, "TASK_SIGNAL": types.offset("task_struct", "signal")}


def _find_numbers_in_namespaces(types: Btf) -> dict[str, int]:
    if (types.offset("upid", "nr"), types.offset("upid", "ns")) != (0, _POINTER_BYTES):
        raise KeyError("upid as we know it")
    return {
        "TASK_THREAD_PID": types.offset("task_struct", "thread_pid"),
        "SIGNAL_TGID": types.offset("signal_struct", "pids") + _POINTER_BYTES * _PIDTYPE_TGID,
        "PID_DEPTH": types.offset("pid", "level"),
        "PID_NUMBERS": types.offset("pid", "numbers"),
    }


_IN_NAMESPACES = (
    "PID_LEVEL", "PID_NAMESPACE", "TASK_THREAD_PID", "SIGNAL_TGID", "PID_DEPTH", "PID_NUMBERS",
)  # fmt: skip


def _find_inode(types: Btf) -> dict[str, int]:
    return {"NAMESPACE_INODE": types.offset("pid_namespace", "ns.inum")}
