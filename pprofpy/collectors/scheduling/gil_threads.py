"""Threads as the kernel keeps them for the GIL, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.kernel.switches import TRACKED
from pprofpy.model.gil import GilThread, Wait

GIL_THREAD = np.dtype(
    [
        ("track", TRACKED),
        ("since_ns", "u8"),
        ("back_ns", "u8"),
        ("switches", "u8"),
        ("hold_ns", "u8"),
        ("handover_ns", "u8"),
        ("gil", "u8"),
        ("stack", "u8"),
        ("wait_count", "u8"),
        ("wait_total_ns", "u8"),
        ("wait_max_ns", "u8"),
        ("handover_total_ns", "u8"),
        ("held_off_ns", "u8"),
        ("held_on_ns", "u8"),
        ("on_cpu_ns", "u8"),
        ("thread_state", "u8"),
        ("place", "u4"),
        ("goes", "u4"),
    ]
)
"""`struct thread` in gil.bpf.c."""

_SUMS = ("wait_count", "wait_ns", "held_on_ns", "held_off_ns", "cpu_ns", "handover_ns")
"""The times and counts of a GilThread."""


def settle(threads: NDArray[Any], now_ns: int) -> None:
    """Add what goes on to the threads' sums, as if it ended now."""
    now = np.uint64(now_ns)
    waits = threads["since_ns"] > 0
    since, back = threads["since_ns"][waits], threads["back_ns"][waits]
    wait_ns = np.maximum(np.where(back > 0, back, now), since) - since
    threads["wait_total_ns"][waits] += wait_ns
    threads["wait_count"][waits] += np.uint64(1)
    threads["wait_max_ns"][waits] = np.maximum(threads["wait_max_ns"][waits], wait_ns)
    for since_name, total_name in (("hold_ns", "held_off_ns"), ("handover_ns", "handover_total_ns")):
        goes_on = threads[since_name] > 0
        begun = threads[since_name][goes_on]
        threads[total_name][goes_on] += np.maximum(begun, now) - begun


def joined_threads(number: int, name: str, threads: Sequence[GilThread]) -> GilThread:
    """Merge the ended threads of a process."""
    sums = {field: sum(getattr(one, field) for one in threads) for field in _SUMS}
    longest_ns = max(one.wait_max_ns for one in threads)
    return GilThread(pid=threads[0].pid, tid=number, name=name, wait_max_ns=longest_ns, **sums)


def increase_since(now: GilThread, before: GilThread | None, waits: tuple[Wait, ...]) -> GilThread:
    """Return the increase of the sums since `before`; the longest wait is then that of these."""
    if before is None:
        return now
    sums = {name: getattr(now, name) - getattr(before, name) for name in _SUMS}
    longest_ns = max((wait.max_ns for wait in waits if wait.tid == now.tid), default=0)
    return replace(now, wait_max_ns=longest_ns, **sums)


def gil_thread(tid: int, name: str, entry: Any) -> GilThread:
    """Return what an entry of the kernel's table says."""
    return GilThread(
        pid=int(entry["track"]["tgid"]),
        tid=tid,
        name=name,
        wait_count=int(entry["wait_count"]),
        wait_ns=int(entry["wait_total_ns"]),
        wait_max_ns=int(entry["wait_max_ns"]),
        held_on_ns=int(entry["held_on_ns"]),
        held_off_ns=int(entry["held_off_ns"]),
        cpu_ns=int(entry["on_cpu_ns"]),
        handover_ns=int(entry["handover_total_ns"]),
    )
