"""Several processes in one recording: those that a pattern names, and what they start; or those of a control group."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

from pprofpy.target import procfs
from pprofpy.target.control_group import ControlGroup
from pprofpy.target.process import Target

_MOST_NAMES, _MOST_PIDS = 3, 8
_SHARE = 50
"""Listing the processes of a control group takes a fiftieth of the time at most."""


def some_of(pids: Iterable[int]) -> str:
    """The first few of these, in words."""
    texts = list(map(str, pids))
    texts[_MOST_PIDS:] = ["..."] * (len(texts) > _MOST_PIDS)
    return ", ".join(texts)


@dataclass(frozen=True, slots=True)
class Group:
    """Processes that are recorded together.

    Attributes:
        members: Two or more, none of which descends from another, ascending by pid. Of a control group: those that can
            be inspected of its first processes.
        control_group: Whose processes they are; others enter and leave it meanwhile.
    """

    members: tuple[Target, ...]
    control_group: ControlGroup | None = None

    @property
    def name(self) -> str:
        """What users call it."""
        return str(self.control_group) if self.control_group else self.members[0].name

    def __str__(self) -> str:
        if self.control_group:
            pids = some_of(one.pid for one in self.members)
            return f"{self.control_group} (pid{'s' * (len(self.members) > 1)} {pids})"
        names = list(dict.fromkeys(one.name for one in self.members))
        called = " or ".join(names[:_MOST_NAMES] + ["otherwise"] * (len(names) > _MOST_NAMES))
        return f"{len(self.members)} processes called {called} (pids {some_of(one.pid for one in self.members)})"

    def is_alive(self) -> bool:
        """Does one of them still run?"""
        if self.control_group:
            return bool(self.control_group.pids())
        return any(one.is_alive() for one in self.members)

    def started_ns(self) -> int:
        """When the first of them started, as `Target.started_ns`: source that is newer may be none of theirs."""
        return min(one.started_ns() for one in self.members)


Watched = Target | Group
"""What a recording is of."""


class Membership:
    """Who enters and leaves what is recorded, while it is. Only control groups change.

    Args:
        watched: A process, a group, or None for all processes.
    """

    def __init__(self, watched: Watched | None) -> None:
        self._watched = watched
        self._group = watched.control_group if isinstance(watched, Group) else None
        self._known = {one.pid for one in watched.members} if watched else set()
        self._asked_ns = self._due_ns = 0
        self._is_empty = False

    def is_over(self) -> bool:
        """Has the last process gone?"""
        return self._is_empty if self._group else self._watched is not None and not self._watched.is_alive()

    def is_due(self) -> bool:
        """Is it time to ask for changes? Always, as long as that takes a fiftieth of the time; else less often."""
        self._asked_ns = time.monotonic_ns()
        return self._group is not None and self._asked_ns >= self._due_ns

    def changes(self, followed: Collection[int]) -> tuple[list[int], list[int]]:
        """The pids of those that have entered, and of those that have left or ended, since the last call; ascending.

        Args:
            followed: Who is recorded. They were listed before this call: who of them is not in the group now has left.
        """
        pids = self._group.pids() if self._group else set()
        self._is_empty = not pids
        left = {pid for pid in self._known.union(followed) - pids if not _is_ending(pid)}
        entered = pids - self._known
        self._known = self._known - left | pids
        self._due_ns = self._asked_ns + (time.monotonic_ns() - self._asked_ns) * _SHARE
        return sorted(entered), sorted(left)


def _is_ending(pid: int) -> bool:
    """Has it ended, but for some of its threads? They belong to it to their last moment."""
    with suppress(OSError):
        return procfs.stat(pid).has_ended
    return False
