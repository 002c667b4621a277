"""Sums by thread, in bounded memory even for programs that start threads for ever.

Each thread has sums of its own up to a limit. Beyond it, threads that have ended are summed by name, without
the numbers in it: `Thread-7 (serve)` and `Thread-8 (serve)` become `Thread-* (serve)`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, ItemsView, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from pprofpy.model.profile import Label, LabelSet
from pprofpy.target import procfs
from pprofpy.text import without_numbers

MANY = 50_000
"""Number of sums above which ended threads are merged; about 20 MB."""

_What = TypeVar("_What", bound=Hashable)


class Who(NamedTuple):
    """A thread; tid 0 stands for several that have ended."""

    pid: int
    tid: int
    name: str

    def labels(self) -> LabelSet:
        """Return the labels of a sample: thread, tid and pid."""
        return Label("thread", self.name), Label("tid", self.tid), Label("pid", self.pid)


class ThreadSums(Generic[_What]):
    """Sums of several values by thread and a second key.

    Args:
        alike: Maps a second key to one without threads that have ended; called with the key and the living tids.
    """

    def __init__(self, alike: Callable[[_What, set[int]], _What] = lambda what, alive: what) -> None:
        self._alike = alike
        self._sums: dict[tuple[Who, _What], list[int]] = {}
        self._many = MANY

    def add(self, who: Who, what: _What, values: Sequence[int]) -> None:
        """Add values to the sums of a thread and a second key."""
        known = self._sums.setdefault((who, what), [0] * len(values))
        for place, value in enumerate(values):
            known[place] += value

    def make_room(self) -> None:
        """Merge the sums of ended threads if there are too many."""
        if len(self._sums) <= self._many:
            return
        alive = living({who.pid for who, _ in self._sums})
        sums, self._sums = self._sums, {}
        for (who, what), values in sums.items():
            owner = who if who.tid in alive else Who(who.pid, 0, without_numbers(who.name))
            self.add(owner, self._alike(what, alive), values)
        self._many = max(MANY, 2 * len(self._sums))

    def items(self) -> ItemsView[tuple[Who, _What], list[int]]:
        """Return (thread, second key) -> values."""
        return self._sums.items()

    def clear(self) -> None:
        """Remove all sums."""
        self._sums.clear()

    def __len__(self) -> int:
        return len(self._sums)


def living(pids: Iterable[int]) -> set[int]:
    """Return the tids that these processes have now."""
    return {tid for pid in pids for tid in procfs.tids(pid)}
