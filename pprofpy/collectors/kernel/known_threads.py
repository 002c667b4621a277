"""What is known of the threads in recorded events, in memory that does not grow with their number."""

from __future__ import annotations

import time
from collections.abc import Callable

from pprofpy.events.switches import Known
from pprofpy.recent import Recent
from pprofpy.units import NS_PER_S

_MOST_NAMES = 20_000


class KnownThreads:
    """Tells of threads; asked for anew each second, since they take other names, and numbers are used again.

    Args:
        ask: Tells what is known of a thread now, and how Python calls it.
    """

    def __init__(self, ask: Callable[[int], tuple[Known, str]]) -> None:
        self._ask = ask
        self._known: dict[int, Known] = {}
        self._told: Recent[int, tuple[int, str]] = Recent(_MOST_NAMES)
        self._new: dict[int, tuple[int, str]] = {}
        self._since_ns = 0

    def __call__(self, tid: int) -> Known:
        """What is known of a thread."""
        now_ns = time.monotonic_ns()
        if now_ns - self._since_ns > NS_PER_S:
            self._known, self._since_ns = {}, now_ns
        if known := self._known.get(tid):
            return known
        known, name = self._ask(tid)
        if known != Known():
            self._known[tid] = known
        if known.watched and self._told.get(tid) != (known.pid, name):
            self._new[tid] = known.pid, name
        return known

    def take_new(self) -> dict[int, tuple[int, str]]:
        """Watched threads that are new, or have a new name: tid -> process, and name as Python has it."""
        new, self._new = self._new, {}
        for tid, about in new.items():
            self._told[tid] = about
        return new
