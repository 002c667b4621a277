"""Losses of a recording, as counts by name. `reports/losses.py` has the text of each."""

from __future__ import annotations

from collections.abc import Mapping

Losses = Mapping[str, int]
"""Name of a loss -> count; names are those in `reports.losses.WORDS`. Zero counts are left out."""


def added(one: Losses, other: Losses) -> dict[str, int]:
    """Return the sums of both."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def since(now: Losses, earlier: Losses) -> dict[str, int]:
    """Return the increase of the counts since `earlier`."""
    return {name: count - earlier.get(name, 0) for name, count in now.items() if count > earlier.get(name, 0)}
