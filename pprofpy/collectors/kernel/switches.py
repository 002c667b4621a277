"""What every program at the scheduler's switches keeps of a thread (`probes/tracked.h`, `probes/switches.h`)."""

from __future__ import annotations

import numpy as np

UNSEEN, ON_CPU, OFF_CPU = range(3)
"""Where a thread is, in `TRACKED["where"]`."""

TRACKED = np.dtype(
    [
        ("since_ns", "u8"),
        ("tgid", "u4"),
        ("where", "u1"),
        ("is_dead", "u1"),
        ("unused", "u2"),
        ("comm", "S16"),
    ]
)
"""`struct tracked`: where a thread is, since when (monotonic clock, 0: unknown), and whose it is."""

WAKEUP = np.dtype([("at_ns", "u8"), ("stack", "u8"), ("tid", "u4"), ("context", "u4")])
"""`struct wakeup`: when a thread was last woken (0: not since it last ran), and by whom."""

TIMES = np.dtype([("count", "u8"), ("total_ns", "u8"), ("max_ns", "u8")])
"""`struct times`: how often something lasted how long."""

SWITCH_LAYOUTS = {"tracked": TRACKED, "wakeup": WAKEUP, "times": TIMES}
"""For the Source of a program that includes switches.h."""
