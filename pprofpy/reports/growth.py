"""Growth of the heap: stacks ranked by how much, and how steadily, their memory rises between snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.heap import Snapshots
from pprofpy.model.profile import Frame, Stack
from pprofpy.reports.columns import layout, names, numbers, quantities
from pprofpy.reports.text import more_rows, name_width, shorten, write_lines
from pprofpy.units import NS_PER_S, format_duration, format_short

DEFAULT_ROWS = 10
_CALLER_AT = 12


@dataclass(frozen=True, slots=True)
class GrowthRow:
    """One stack.

    Attributes:
        stack: Leaf-first.
        bytes_by_snapshot: In use at each snapshot.
        rises: How many times it had grown since the snapshot before.
    """

    stack: Stack
    bytes_by_snapshot: tuple[int, ...]
    rises: int

    @property
    def growth_bytes(self) -> int:
        """From the first snapshot to the last."""
        return self.bytes_by_snapshot[-1] - self.bytes_by_snapshot[0]

    @property
    def score(self) -> float:
        """Growth as far as it is steady: what rises every time is a leak, what rises once perhaps a cache."""
        return self.growth_bytes * self.rises / (len(self.bytes_by_snapshot) - 1)


@dataclass(frozen=True, slots=True)
class Growth:
    """The report.

    Attributes:
        rows: Highest score first.
        hidden: How many further stacks have grown.
        times_ns: Of the snapshots, since the start.
        totals_bytes: In use in all at each snapshot.
    """

    rows: list[GrowthRow]
    hidden: int
    times_ns: tuple[int, ...]
    totals_bytes: tuple[int, ...]


def build(snapshots: Snapshots, limit: int = DEFAULT_ROWS) -> Growth:
    """Compare snapshots of one recording.

    Args:
        snapshots: At least two.
        limit: The most rows; 0 for all.
    """
    values = snapshots.sizes_bytes
    rows = [
        GrowthRow(stack, tuple(sizes), sum(after > before for before, after in pairwise(sizes)))
        for stack, sizes in values.items()
    ]
    grown = sorted((row for row in rows if row.score > 0), key=lambda row: -row.score)
    shown = limit or len(grown)
    return Growth(
        grown[:shown],
        len(grown[shown:]),
        tuple(snapshots.times_ns),
        tuple(sum(column) for column in zip(*values.values(), strict=True)) or (0,) * len(snapshots),
    )


def render(report: Growth, console: Console) -> None:
    """Print the table: a line for the place that allocates, one for the call that led there."""
    span_ns = report.times_ns[-1] - report.times_ns[0]
    first, last = (format_short(report.totals_bytes[index], "bytes") for index in (0, -1))
    title = f"Growth over {len(report.times_ns)} snapshots in {format_duration(span_ns)}: {first} -> {last} in use"
    write_lines(console, [title])
    if not report.rows:
        write_lines(console, ["Nothing has grown."])
        return
    write_lines(console, _table(report.rows, span_ns, console))
    write_lines(console, more_rows(report.hidden))


def to_json(report: Growth) -> dict[str, Any]:
    """Return the report as data for JSON; bytes and nanoseconds."""
    data = asdict(report)
    data["rows"] = [
        {
            "growth_bytes": row.growth_bytes,
            "rises": row.rises,
            "bytes_by_snapshot": list(row.bytes_by_snapshot),
            "stack": [_place(frame) for frame in row.stack],
        }
        for row in report.rows
    ]
    return data


def _table(rows: list[GrowthRow], span_ns: int, console: Console) -> Iterator[Text]:
    a_minute = [round(row.growth_bytes * 60 * NS_PER_S / max(span_ns, 1)) for row in rows]
    heading, *lines = layout(
        [
            quantities("growth", [row.growth_bytes for row in rows], "bytes"),
            quantities("a minute", a_minute, "bytes"),
            numbers("rises", (f"{row.rises}/{len(row.bytes_by_snapshot) - 1}" for row in rows)),
            quantities("now", [row.bytes_by_snapshot[-1] for row in rows], "bytes"),
            names("where", (_place(row.stack[0]) if row.stack else "?" for row in rows)),
        ],
        console,
    )
    yield heading
    width = name_width(console, _CALLER_AT + 5)
    for row, line in zip(rows, lines, strict=True):
        yield line
        for caller in row.stack[1:2]:
            yield Text(f"{'':{_CALLER_AT}}from {shorten(_place(caller), width)}", "dim")


def _place(frame: Frame) -> str:
    function, line = frame.function, f":{frame.line}" if frame.line else ""
    return f"{function.name} {function.filename}{line}".rstrip()
