"""Several processes in one recording: those that a pattern names, and what they start."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pprofpy.target.process import Target

_MOST_NAMES, _MOST_PIDS = 3, 8


def some_of(pids: Iterable[int]) -> str:
    """The first few of these, in words."""
    texts = list(map(str, pids))
    texts[_MOST_PIDS:] = ["..."] * (len(texts) > _MOST_PIDS)
    return ", ".join(texts)


@dataclass(frozen=True, slots=True)
class Group:
    """Processes that are recorded together.

    Attributes:
        members: Two or more, none of which descends from another, ascending by pid.
    """

    members: tuple[Target, ...]

    def __str__(self) -> str:
        names = list(dict.fromkeys(one.name for one in self.members))
        called = " or ".join(names[:_MOST_NAMES] + ["otherwise"] * (len(names) > _MOST_NAMES))
        return f"{len(self.members)} processes called {called} (pids {some_of(one.pid for one in self.members)})"

    def is_alive(self) -> bool:
        """Does one of them still run?"""
        return any(one.is_alive() for one in self.members)

    def started_ns(self) -> int:
        """When the first of them started, as `Target.started_ns`: source that is newer may be none of theirs."""
        return min(one.started_ns() for one in self.members)


Watched = Target | Group
"""What a recording is of."""
