"""Threads as the kernel keeps them for waits for a CPU, and their histograms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pprofpy.collectors.kernel.scope import comm_text
from pprofpy.collectors.kernel.switches import ON_CPU, SWITCH_LAYOUTS, TRACKED, WAKEUP
from pprofpy.model.latency import Histogram, ThreadWaits, Waits

_WAITS = np.dtype([("count", "u8"), ("total_ns", "u8"), ("max_ns", "u8", 2), ("max_at_ns", "u8", 2)])
WAITING_THREAD = np.dtype(
    [
        ("track", TRACKED),
        ("wakeup", WAKEUP),
        ("stack", "u8"),
        ("woken", _WAITS),
        ("preempted", _WAITS),
        ("window", "u4", 2),
        ("migrations", "u8"),
        ("cpu", "u4"),
        ("left_runnable", "u4"),
        ("waker_comm", "S16"),
    ]
)
BUCKET = np.dtype([("tid", "u4"), ("was_preempted", "u2"), ("index", "u2")])
WAITING_LAYOUTS = SWITCH_LAYOUTS | {"waits": _WAITS, "thread": WAITING_THREAD, "bucket": BUCKET}
"""For the Source of sched_latency.bpf.c."""


def thread_waits(
    tid: int, name: str, thread: Any, histograms: dict[tuple[int, int], Histogram], window: int, now_ns: int
) -> ThreadWaits:
    """One thread's entry in the kernel's table, in our words."""
    slot = window & 1
    is_current = int(thread["window"][slot]) == window

    def kind(name: str, was_preempted: int) -> Waits:
        waits = thread[name]
        max_ns = int(waits["max_ns"][slot]) if is_current else 0
        max_at_ns = int(waits["max_at_ns"][slot]) if max_ns else 0
        histogram = histograms.get((tid, was_preempted), Histogram())
        return Waits(int(waits["count"]), int(waits["total_ns"]), max_ns, max_at_ns, histogram)

    track, wake_ns = thread["track"], int(thread["wakeup"]["at_ns"])
    off_ns = int(track["since_ns"])
    since_ns = off_ns if thread["left_runnable"] else wake_ns if wake_ns > off_ns else 0
    waits_now = since_ns and track["where"] != ON_CPU and not track["is_dead"]
    return ThreadWaits(
        int(track["tgid"]),
        tid,
        name,
        kind("woken", 0),
        kind("preempted", 1),
        int(thread["migrations"]),
        max(now_ns - since_ns, 0) if waits_now else 0,
        comm_text(track["comm"]),
    )


def increase_since(now: ThreadWaits, base: ThreadWaits | None) -> ThreadWaits:
    """What came on top of `base`; the longest wait is already that of the window."""
    if base is None:
        return now

    def less(new: Waits, old: Waits) -> Waits:
        return replace(
            new,
            count=new.count - old.count,
            total_ns=new.total_ns - old.total_ns,
            histogram=new.histogram.minus(old.histogram),
        )

    return replace(
        now,
        woken=less(now.woken, base.woken),
        preempted=less(now.preempted, base.preempted),
        migrations=now.migrations - base.migrations,
    )
