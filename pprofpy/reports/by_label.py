"""Cost by label: a table for each label that the user asked for, with one row per value and its costliest function."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from pprofpy.model.profile import Profile
from pprofpy.reports.columns import layout, names, numbers, quantities, shares
from pprofpy.reports.text import write_lines
from pprofpy.units import format_share

_NONE = "(none)"


@dataclass(frozen=True, slots=True)
class Row:
    """One value of a label.

    Attributes:
        value: The label's value.
        cost: What was spent with it, in the table's unit.
        hottest: The function that spent most of that itself.
        hottest_cost: How much.
    """

    value: str
    cost: int
    hottest: str
    hottest_cost: int


@dataclass(frozen=True, slots=True)
class ByLabel:
    """The table of one label: rows, largest first; `total` is what 100 % means, `hidden` how many rows are left out."""

    key: str
    rows: list[Row]
    hidden: int
    total: int
    unit: str


def build(profile: Profile, value_index: int, limit: int, wanted: str) -> list[ByLabel]:
    """Sum a sample type by each label that was asked for.

    Args:
        profile: The recording's.
        value_index: Of the sample type.
        limit: Show at most this many rows of each table (0: all).
        wanted: The labels, with commas between them; those of holders of the lock are shown with them.
    """
    spent: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    there = {label.key for labels in profile.label_sets for label in labels}
    keys = [key for name in wanted.split(",") for key in (name, f"holder_{name}") if key in there]
    for leaf, known, cost in _costs(profile, value_index):
        for key in keys:
            spent[key][known.get(key, _NONE)][leaf] += cost
    return [_table(profile, value_index, key, spent[key], limit) for key in keys]


def _costs(profile: Profile, value_index: int) -> Iterator[tuple[str, dict[str, str], int]]:
    """Of each sample its function, its labels, its cost. What stands for no function is none."""
    functions = [profile.frames_of(location)[0].function.name for location in profile.locations]
    labels = [{label.key: str(label.value) for label in known} for known in profile.label_sets]
    leaves = {}
    rows_of = zip(profile.sample_stacks, profile.sample_labels, profile.values[:, value_index].tolist(), strict=True)
    for stack, known, cost in rows_of:
        if stack not in leaves:
            on_it = [functions[location] for location in profile.stacks[stack]]
            leaves[stack] = next((name for name in on_it if not name.startswith("[")), "") or "".join(on_it[:1])
        yield leaves[stack], labels[known], cost


def _table(profile: Profile, value_index: int, key: str, spent: dict[str, Counter[str]], limit: int) -> ByLabel:
    rows = [Row(value, costs.total(), *costs.most_common(1)[0]) for value, costs in spent.items()]
    rows.sort(key=lambda row: (-row.cost, row.value))
    shown = rows[: limit or None]
    unit = profile.sample_types[value_index].unit
    return ByLabel(key, shown, len(rows) - len(shown), profile.total(value_index), unit)


def render(tables: list[ByLabel], console: Console) -> None:
    """Print the tables, each with an empty line before it."""
    for table in tables:
        columns = [
            quantities("cost", [row.cost for row in table.rows], table.unit),
            shares("cost%", (row.cost for row in table.rows), table.total),
            names(table.key, (row.value for row in table.rows)),
            numbers("of it", (format_share(row.hottest_cost, row.cost) for row in table.rows)),
            names("hottest function", (row.hottest for row in table.rows)),
        ]
        more = [f"… {table.hidden:,} more: -N 0 shows all"] if table.hidden else []
        write_lines(console, ["", *layout(columns, console), *more])


def to_json(tables: list[ByLabel]) -> dict[str, Any]:
    """Return `labels` as data for JSON, label -> rows, if there are any; costs in the unit of the sample type."""
    return {"labels": {table.key: [asdict(row) for row in table.rows] for table in tables}} if tables else {}
