"""The functions (or lines, or files) that cost the most: the table that `go tool pprof -top` prints."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.graph import Entity, Graph
from pprofpy.reports import header
from pprofpy.reports.header import Header
from pprofpy.reports.text import flat_and_cum, more_rows, name_width, shorten, write_lines
from pprofpy.reports.trim import AUTO_UNIT, Limits, Trimmed, trim
from pprofpy.units import format_value

DEFAULT_NODE_COUNT = 25

_COLUMNS = f"{'flat':>10} {'flat':>5}% {'sum':>5}% {'cum':>10} {'cum':>5}%"


@dataclass(frozen=True, slots=True)
class Row:
    """One function, line or file.

    Attributes:
        entity: What it is.
        flat: What it spent itself.
        flat_sum: The sum of flat of this row and all rows above it.
        cum: What it and everything that it called spent.
        inline: "inline" where the compiler inlined all calls to it, "partial-inline" where some.
    """

    entity: Entity
    flat: int
    flat_sum: int
    cum: int
    inline: str = ""


@dataclass(frozen=True, slots=True)
class Top:
    """The table.

    Attributes:
        header: What is known of the profile.
        summary: What is shown and what is not.
        rows: Largest first.
        hidden: How many further rows a larger node count would show.
        dropped: How many are too small to be listed: below this share of everything, `smallest`.
        unit: The unit in which values are printed; those in `rows` are in that of the header's sample type.
    """

    header: Header
    summary: list[str]
    rows: list[Row]
    hidden: int
    unit: str
    dropped: int = 0
    smallest: float = 0.0


def build(
    about: Header,
    graph: Graph,
    limits: Limits = Limits(DEFAULT_NODE_COUNT),  # noqa: B008 - immutable
    *,
    by_cum: bool = False,
    ties_by_name: bool = True,
    unit: str = AUTO_UNIT,
) -> Top:
    """Choose and sort the rows.

    Args:
        about: The profile's header.
        graph: Flat and cum.
        limits: What to leave out.
        by_cum: Sort by cum rather than flat.
        ties_by_name: Sort equal ones by name, not by the other value.
        unit: The unit to print in; the report chooses if it is "minimum".
    """
    trimmed = trim(graph, limits, by_cum=by_cum, ties_by_name=ties_by_name)
    marks = _inline_marks(trimmed)
    flat, cum = trimmed.graph.flat[trimmed.order].tolist(), trimmed.graph.cum[trimmed.order].tolist()
    rows = [
        Row(graph.entities[index], own, running, all_of_it, marks.get(index, ""))
        for index, own, running, all_of_it in zip(trimmed.order, flat, accumulate(flat), cum, strict=True)
    ]
    unit = trimmed.unit(unit)
    hidden = trimmed.candidates - len(rows)
    return Top(about, trimmed.summary(unit), rows, hidden, unit, trimmed.dropped, limits.node_fraction)


def render(top: Top, console: Console) -> None:
    """Print the table; on a terminal with colour, names cut to fit. There is none for a profile without a sample."""
    if not (top.rows or top.hidden or top.header.total):
        write_lines(console, [*header.lines(top.header, top.unit), "There is no sample in it."])
        return
    write_lines(console, [*header.lines(top.header, top.unit), *top.summary, Text(_COLUMNS, "bold")])
    width = name_width(console, len(_COLUMNS) + 2)
    write_lines(console, (_line(row, top, width) for row in top.rows))
    noun = " row" if top.hidden == 1 else " rows"
    write_lines(console, more_rows(top.hidden, len(_COLUMNS) + 2, noun))


def to_json(top: Top) -> dict[str, Any]:
    """Return the table as data for JSON; values in the unit of the sample type."""
    return {
        **header.to_json(top.header),
        "hidden_rows": top.hidden,
        "rows": [
            {
                "name": row.entity.name,
                "filename": row.entity.filename,
                "line": row.entity.line,
                "flat": row.flat,
                "flat_sum": row.flat_sum,
                "cum": row.cum,
                "inline": row.inline,
            }
            for row in top.rows
        ],
    }


def _inline_marks(trimmed: Trimmed) -> dict[int, str]:
    """For entities that a compiler inlined: into all of their callers, or into some."""
    if not trimmed.graph.inlined.any():
        return {}
    edges = trimmed.edges()
    inlined, called = set(edges.callees[edges.inlined].tolist()), set(edges.callees[~edges.inlined].tolist())
    return {index: "partial-inline" if index in called else "inline" for index in inlined}


def _line(row: Row, top: Top, width: int) -> Text:
    total, unit = top.header.total, top.header.sample_type.unit
    mark = f" ({row.inline})" if row.inline else ""
    return Text.assemble(
        *flat_and_cum(row, total, lambda value: format_value(value, unit, top.unit)),
        f"  {shorten(str(row.entity), width - len(mark))}{mark}",
    )
