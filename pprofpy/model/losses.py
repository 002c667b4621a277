"""What a recording could not have, as numbers with names. Reports put them into words (`reports/losses.py`)."""

from __future__ import annotations

from collections.abc import Mapping

Losses = Mapping[str, int]
"""Name of what was lost -> how often; names are those in `reports.losses.WORDS`. What was never lost is left out."""


def added(one: Losses, other: Losses) -> dict[str, int]:
    """Both together."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def since(now: Losses, earlier: Losses) -> dict[str, int]:
    """What came on top of `earlier`, an earlier state of the same counts."""
    return {name: count - earlier.get(name, 0) for name, count in now.items() if count > earlier.get(name, 0)}
