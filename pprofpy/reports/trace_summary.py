"""What each thread called, how often, for how long and with which success."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.events.log import EventStats, EventSummary
from pprofpy.model.latency import Histogram
from pprofpy.model.profile import Collection
from pprofpy.reports.columns import Column, layout, names, numbers, quantities
from pprofpy.reports.losses import lines
from pprofpy.reports.text import more_rows, write_lines
from pprofpy.text import counted
from pprofpy.units import format_duration

DEFAULT_THREADS = 10
DEFAULT_EVENTS = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One event of one thread (or of several), or the sum of those that found no place.

    Attributes:
        event: Its name.
        count, errors: How often it happened, and how often it failed.
        is_call: Only then are there times.
    """

    event: str
    count: int
    is_call: bool
    errors: int
    total_ns: int
    min_ns: int
    avg_ns: int
    p99_ns: int
    max_ns: int


@dataclass(frozen=True, slots=True)
class ThreadTable:
    """One thread, or all threads that found no place.

    Attributes:
        pid, tid: Who; 0 for a sum of several.
        title: In words.
        calls, errors, events: System calls, those that failed, and events at tracepoints.
        rows: Calls first, longest in all first; then events by number.
        hidden: How many rows were left out.
    """

    pid: int
    tid: int
    title: str
    calls: int
    errors: int
    events: int
    rows: list[Row]
    hidden: int


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """The report.

    Attributes:
        tables: The busiest thread first.
        duration_ns: How long was watched.
        collection: How, and what was lost.
    """

    tables: list[ThreadTable]
    duration_ns: int
    collection: Collection


def build(summary: EventSummary, threads: int = DEFAULT_THREADS, events: int = DEFAULT_EVENTS) -> TraceSummary:
    """Group by thread and sort.

    Args:
        summary: What was recorded.
        threads: Show at most this many threads (0: all); the others are summed in one table.
        events: Show at most this many rows of a table (0: all).
    """
    groups: defaultdict[tuple[int, int], list[EventStats]] = defaultdict(list)
    for one in summary.stats:
        groups[one.pid, one.tid].append(one)
    ranked = sorted(groups.items(), key=lambda item: (-sum(one.count for one in item[1]), item[0]))
    shown = ranked[: threads or None]
    tables = [_table(pid, tid, f"{_latest_name(stats)}/{tid}", stats, events) for (pid, tid), stats in shown]
    if others := ranked[len(shown) :]:
        stats = [one for _, group in others for one in group]
        tables.append(_table(0, 0, f"{counted(len(others), 'more thread')}", stats, events))
    return TraceSummary(tables, summary.duration_ns, summary.collection)


def render(report: TraceSummary, console: Console) -> None:
    """Print a table for each thread, 80 columns wide."""
    for table in report.tables:
        write_lines(console, ["", Text(_title(table, report.duration_ns), "bold")])
        write_lines(console, _lines(table.rows, console))
        write_lines(console, more_rows(table.hidden))
    if not report.tables:
        write_lines(console, ["Nothing happened."])
    write_lines(console, ["", *found] if (found := lines(report.collection)) else [])


def to_json(report: TraceSummary) -> dict[str, Any]:
    """The report for programs; times in nanoseconds."""
    collection = asdict(report.collection)
    return {
        "duration_ns": report.duration_ns,
        "collection": {name: value for name, value in collection.items() if value not in (-1, "", ())},
        "threads": [asdict(table) for table in report.tables],
    }


def _latest_name(stats: Sequence[EventStats]) -> str:
    return max(stats, key=lambda one: one.last_ns).thread


def _table(pid: int, tid: int, title: str, stats: Sequence[EventStats], limit: int) -> ThreadTable:
    merged: defaultdict[tuple[bool, str], list[EventStats]] = defaultdict(list)
    for one in stats:
        merged[one.is_call, one.event].append(one)
    rows = [_row(event, is_call, group) for (is_call, event), group in merged.items()]
    rows.sort(key=lambda row: (not row.is_call, -row.total_ns, -row.count, row.event))
    shown = rows[: limit or None]
    calls = sum(row.count for row in rows if row.is_call)
    return ThreadTable(
        pid,
        tid,
        title,
        calls,
        sum(row.errors for row in rows),
        sum(row.count for row in rows) - calls,
        shown,
        len(rows) - len(shown),
    )


def _row(event: str, is_call: bool, stats: Sequence[EventStats]) -> Row:
    count, total_ns = sum(one.count for one in stats), sum(one.total_ns for one in stats)
    max_ns = max(one.max_ns for one in stats)
    histogram = Histogram().merge(one.histogram for one in stats)
    return Row(
        event,
        count,
        is_call,
        sum(one.errors for one in stats),
        total_ns,
        min(one.min_ns for one in stats),
        round(total_ns / count) if count else 0,
        histogram.quantiles_ns([0.99], max_ns)[0],
        max_ns,
    )


def _title(table: ThreadTable, duration_ns: int) -> str:
    parts = []
    if table.calls:
        failed = f", {table.errors:,} failed" if table.errors else ""
        parts.append(counted(table.calls, "call") + failed)
    if table.events:
        parts.append(counted(table.events, "event"))
    within = f" in {format_duration(duration_ns)}" if duration_ns else ""
    return f"{table.title}: {' and '.join(parts)}{within}"


def _lines(rows: Sequence[Row], console: Console) -> list[Text]:
    """The calls, and below them the events, which take no time."""
    columns = [
        numbers("calls", (f"{row.count:,}" for row in rows)),
        numbers("failed", (row.errors or "" for row in rows)),
        *(
            _of_calls(quantities(name, [getattr(row, f"{name}_ns") for row in rows]), rows)
            for name in ("total", "min", "avg", "p99", "max")
        ),
        names("call", (row.event for row in rows)),
    ]
    if not any(row.is_call for row in rows):
        return layout([columns[0], columns[-1]], console)[1:]
    return layout(columns, console)


def _of_calls(column: Column, rows: Sequence[Row]) -> Column:
    return replace(column, cells=[cell if row.is_call else "" for cell, row in zip(column.cells, rows, strict=True)])
