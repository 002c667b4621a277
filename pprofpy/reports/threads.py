"""Cost by thread: one row per thread, with its costliest function."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from pprofpy.model.profile import LabelSet, Profile
from pprofpy.reports.columns import layout, names, numbers, quantities, shares
from pprofpy.reports.text import write_lines
from pprofpy.units import format_share


@dataclass(frozen=True, slots=True)
class Row:
    """One thread.

    Attributes:
        thread: Its name.
        tid, pid: Its ids; 0 where the profile does not say.
        value: What it spent, in the table's unit.
        hottest: The function that spent most of that itself.
        hottest_value: How much.
    """

    thread: str
    tid: int
    pid: int
    value: int
    hottest: str
    hottest_value: int


@dataclass(frozen=True, slots=True)
class Threads:
    """The table: rows, largest first; `total` is what 100 % means."""

    rows: list[Row]
    total: int
    unit: str


def build(profile: Profile, value_index: int) -> Threads:
    """Sum a sample type by thread."""
    spent: dict[tuple[str, int, int], Counter[str]] = {}
    names = [profile.frames_of(location)[0].function.name for location in profile.locations]
    leaves = [
        names[stack[0]] if len(stack) else "<no stack>"
        for stack in map(profile.stacks.__getitem__, range(len(profile.stacks)))
    ]
    rows_of = zip(profile.sample_stacks, profile.sample_labels, profile.values[:, value_index].tolist(), strict=True)
    for stack, labels, value in rows_of:
        spent.setdefault(_identity(profile.label_sets[labels]), Counter())[leaves[stack]] += value
    rows = [Row(*identity, functions.total(), *functions.most_common(1)[0]) for identity, functions in spent.items()]
    rows.sort(key=lambda row: (-row.value, row.thread, row.tid))
    return Threads(rows, profile.total(value_index), profile.sample_types[value_index].unit)


def render(threads: Threads, console: Console) -> None:
    """Print the table."""
    rows = threads.rows
    several = len({row.pid for row in rows if row.pid}) > 1
    columns = [
        quantities("cost", [row.value for row in rows], threads.unit),
        shares("cost%", (row.value for row in rows), threads.total),
        *([numbers("pid", (row.pid or "" for row in rows))] if several else []),
        numbers("tid", (row.tid or "" for row in rows)),
        names("thread", (row.thread for row in rows)),
        numbers("of it", (format_share(row.hottest_value, row.value) for row in rows)),
        names("hottest function", (row.hottest for row in rows)),
    ]
    write_lines(console, layout(columns, console))


def to_json(threads: Threads) -> list[dict[str, Any]]:
    """Return the rows as data for JSON; values in the unit of the sample type."""
    return [asdict(row) for row in threads.rows]


def _identity(labels: LabelSet) -> tuple[str, int, int]:
    known = {label.key: label.value for label in labels}
    tid, pid = known.get("tid", 0), known.get("pid", 0)
    return str(known.get("thread", "?")), tid if isinstance(tid, int) else 0, pid if isinstance(pid, int) else 0
