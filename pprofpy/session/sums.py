"""Sums by thread, in bounded memory also for programs that start threads for ever.

Threads are told apart as long as there are not too many sums. Then those that have ended are summed up by name, without
the numbers in it: of `Thread-7 (serve)` and `Thread-8 (serve)` becomes `Thread-N (serve)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, ItemsView, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from pprofpy.model.profile import Label, LabelSet
from pprofpy.target import procfs

MANY = 50_000
"""Sums. Some 20 MB."""

_What = TypeVar("_What", bound=Hashable)


class Who(NamedTuple):
    """A thread; tid 0 stands for several that have ended."""

    pid: int
    tid: int
    name: str

    def labels(self) -> LabelSet:
        """For a sample of a profile."""
        return Label("thread", self.name), Label("tid", self.tid), Label("pid", self.pid)


class ThreadSums(Generic[_What]):
    """Sums of several values by thread and whatever else.

    Args:
        alike: Makes the same of what differs only in threads that have ended. It is told which threads are alive.
    """

    def __init__(self, alike: Callable[[_What, set[int]], _What] = lambda what, alive: what) -> None:
        self._alike = alike
        self._sums: dict[tuple[Who, _What], list[int]] = {}
        self._many = MANY

    def add(self, who: Who, what: _What, values: Sequence[int]) -> None:
        """Add to the sums of a thread."""
        known = self._sums.setdefault((who, what), [0] * len(values))
        for place, value in enumerate(values):
            known[place] += value

    def make_room(self) -> None:
        """Sum up threads that have ended, if there are many sums."""
        if len(self._sums) <= self._many:
            return
        alive = living({who.pid for who, _ in self._sums})
        sums, self._sums = self._sums, {}
        for (who, what), values in sums.items():
            owner = who if who.tid in alive else Who(who.pid, 0, numberless(who.name))
            self.add(owner, self._alike(what, alive), values)
        self._many = max(MANY, 2 * len(self._sums))

    def items(self) -> ItemsView[tuple[Who, _What], list[int]]:
        """Thread and whatever else, and the values."""
        return self._sums.items()

    def clear(self) -> None:
        """Begin anew."""
        self._sums.clear()

    def __len__(self) -> int:
        return len(self._sums)


def numberless(name: str) -> str:
    """What the names of threads have in common that are numbered, as `Thread-7 (work)` and `ThreadPoolExecutor-1_4`."""
    return re.sub(r"\d+", "N", name)


def living(pids: Iterable[int]) -> set[int]:
    """The threads that these processes have now."""
    return {tid for pid in pids for tid in procfs.tids(pid)}
