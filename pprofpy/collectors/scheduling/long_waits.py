"""Waits above a threshold, one by one, with what their CPU did meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np

from pprofpy.collectors.kernel.ids import OUTSIDE
from pprofpy.collectors.kernel.scheduler import CONTEXTS
from pprofpy.collectors.kernel.scope import comm_text
from pprofpy.model.latency import CpuSlice, LongWait

_SLICE = np.dtype([("start_ns", "u8"), ("tid", "u4"), ("tgid", "u4"), ("comm", "S16")])
LONG_WAIT = np.dtype(
    [
        ("end_ns", "u8"),
        ("wait_ns", "u8"),
        ("stack", "u8"),
        ("waker_stack", "u8"),
        ("tid", "u4"),
        ("tgid", "u4"),
        ("cpu", "u4"),
        ("cpu_before", "u4"),
        ("waker_tid", "u4"),
        ("waker_context", "u1"),
        ("was_preempted", "u1"),
        ("next_slice", "u2"),
        ("comm", "S16"),
        ("waker_comm", "S16"),
        ("slices", _SLICE, 128),
    ]
)
"""`struct long_wait` in sched_latency.bpf.c."""

LONG_WAIT_LAYOUTS = {"slice": _SLICE, "long_wait": LONG_WAIT}
"""For the Source of sched_latency.bpf.c."""


def long_wait(event: Any) -> LongWait:
    """A wait above the threshold, with what its CPU did meanwhile."""
    begin_ns, end_ns = int(event["end_ns"] - event["wait_ns"]), int(event["end_ns"])
    oldest = int(event["next_slice"])
    history = np.roll(event["slices"], -oldest)
    history = history[(history["start_ns"] > 0) & (history["start_ns"] < end_ns)]
    starts = np.maximum(history["start_ns"].astype(np.int64), begin_ns)
    ends = np.append(history["start_ns"][1:].astype(np.int64), end_ns)[: len(history)]
    ran = tuple(
        CpuSlice(*_who(one), int(end - start))
        for one, start, end in zip(history, starts, ends, strict=True)
        if end > start
    )
    preempted, context = bool(event["was_preempted"]), int(event["waker_context"])
    waker = "" if preempted else CONTEXTS[context] if context else comm_text(event["waker_comm"])
    return LongWait(
        end_ns,
        end_ns - begin_ns,
        int(event["tgid"]),
        int(event["tid"]),
        comm_text(event["comm"]),
        int(event["cpu"]),
        int(event["cpu_before"]) - 1,
        preempted,
        waker,
        0 if preempted or event["waker_tid"] == OUTSIDE else int(event["waker_tid"]),
        end_ns - begin_ns - sum(one.duration_ns for one in ran),
        ran=ran,
    )


def _who(ran: Any) -> tuple[int, int, str]:
    """The tid, pid and name of who had a CPU for a while."""
    name = comm_text(ran["comm"])
    if ran["tid"] == OUTSIDE:
        return 0, 0, f"{name} (outside of our pid namespace)"
    return (int(ran["tid"]), int(ran["tgid"]), name) if ran["tid"] else (0, 0, "idle")
