"""The table that recording commands print: that of `top` in our own units, below a title of one line."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from pprofpy.reports import header
from pprofpy.reports.columns import Column, layout, names, quantities, shares
from pprofpy.reports.header import Header
from pprofpy.reports.text import heat, write_lines
from pprofpy.reports.top import Top
from pprofpy.text import counted
from pprofpy.units import format_duration, format_short

_TITLES = {
    "cpu": "CPU time",
    "wall": "Wall-clock time",
    "inuse_space": "Memory in use",
    "inuse_objects": "Objects in use",
    "alloc_space": "Memory allocated",
    "alloc_objects": "Objects allocated",
}
"""Sample type -> what the table is about; other types speak for themselves."""


def render(top: Top, console: Console) -> None:
    """Print the table; there is none for a recording without a sample."""
    about = [_title(top.header), *header.losses(top.header.collection, verbose=top.header.verbose)]
    if not top.header.total:
        write_lines(console, [*about, "There is no sample in it."])
        return
    write_lines(console, [*about, *_table(top, console), *_hidden(top)])


def _title(about: Header) -> str:
    kind = about.sample_type
    total = format_short(about.total, kind.unit)
    length = format_duration(about.duration_ns) if about.duration_ns else ""
    whose = ", ".join(filter(None, (about.collection.target or about.file, length)))
    is_sampled = kind.unit == "nanoseconds" and about.collection.got >= 0
    samples = f" in {counted(about.collection.got, 'sample')}" if is_sampled else ""
    return ": ".join(filter(None, (_TITLES.get(kind.type, kind.type), whose, f"{total}{samples}")))


def _table(top: Top, console: Console) -> list[Text]:
    total, unit = top.header.total, top.header.sample_type.unit
    flat, cum = [row.flat for row in top.rows], [row.cum for row in top.rows]
    values = quantities("", [*flat, *cum], unit).cells  # one unit for both

    def coloured(title: str, column: list[int]) -> Column:
        return Column(title, shares("", column, total).cells, styles=[heat(value, total) for value in column])

    columns = [
        Column("flat", values[: len(flat)]),
        coloured("flat%", flat),
        shares("sum%", (row.flat_sum for row in top.rows), total),
        Column("cum", values[len(flat) :]),
        coloured("cum%", cum),
        names("", (" ".join(filter(None, (str(row.entity), row.inline and f"({row.inline})"))) for row in top.rows)),
    ]
    return layout(columns, console)


def _hidden(top: Top) -> list[Text]:
    """How much is not shown, and how to see it."""
    parts = []
    if top.hidden:
        parts.append(f"{top.hidden:,} more: -N 0 shows all")
    if top.dropped:
        small = f"{counted(top.dropped, 'row')} below {top.smallest:.1%}"
        parts.append(f"{small}: 'pprofpy top --nodefraction 0' shows all")
    return [Text(f"        … {part}", "dim") for part in parts]
