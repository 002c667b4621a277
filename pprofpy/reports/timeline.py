"""The time of each thread: running, runnable and blocked, and what blocked it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.timeline import Span, State, Timeline
from pprofpy.reports.columns import layout, names, quantities, shares
from pprofpy.reports.text import more_rows, write_lines
from pprofpy.text import counted
from pprofpy.units import format_duration, format_short

DEFAULT_ROWS = 20

_MOST_REASONS = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One thread; times in nanoseconds.

    Attributes:
        running_ns, runnable_ns, blocked_ns: In each state; less than the recording if the thread began or ended in it.
        reasons: What it was blocked by, longest first: (system call or state, ns).
        switches: How often it got a CPU.
    """

    pid: int
    tid: int
    name: str
    running_ns: int
    runnable_ns: int
    blocked_ns: int
    reasons: list[tuple[str, int]]
    switches: int


@dataclass(frozen=True, slots=True)
class TimelineTable:
    """The report.

    Attributes:
        rows: Who ran longest first.
        hidden: How many threads were left out.
        wakeups: How many arrows there are.
        duration_ns: Of the recording.
        holes: How many events are missing; the times beside them are wrong.
    """

    rows: list[Row]
    hidden: int
    wakeups: int
    duration_ns: int
    holes: int = 0


def build(timeline: Timeline, limit: int = DEFAULT_ROWS) -> TimelineTable:
    """Sum up each thread.

    Args:
        timeline: The states.
        limit: Show at most this many threads (0: all).
    """
    rows = [_row(tid, spans, timeline) for tid, spans in timeline.spans.items()]
    rows.sort(key=lambda row: (-row.running_ns, row.tid))
    shown = rows[: limit or None]
    return TimelineTable(shown, len(rows) - len(shown), len(timeline.arrows), timeline.duration_ns, timeline.holes)


def render(report: TimelineTable, console: Console) -> None:
    """Print the table."""
    threads, holes = len(report.rows) + report.hidden, report.holes
    title = (
        f"{counted(threads, 'thread')}, {format_duration(report.duration_ns)}, "
        f"{counted(report.wakeups, 'wake-up')} between threads"
    )
    missing = "events are" if holes != 1 else "event is"
    note = [f"Note: {holes:,} {missing} missing; times around {'it' if holes == 1 else 'them'} are wrong."]
    write_lines(console, [title, *(note if holes else []), "", *_table(report, console)])
    write_lines(console, more_rows(report.hidden))


def to_json(report: TimelineTable) -> dict[str, Any]:
    """Return the report as data for JSON; times in nanoseconds."""
    return asdict(report)


def _row(tid: int, spans: Iterable[Span], timeline: Timeline) -> Row:
    times: Counter[State] = Counter()
    reasons: Counter[str] = Counter()
    switches = 0
    for span in spans:
        times[span.state] += span.duration_ns
        switches += span.state is State.RUNNING
        if span.state is State.BLOCKED:
            reasons[span.call or span.why] += span.duration_ns
    thread = timeline.threads.get(tid)
    return Row(
        thread.pid if thread else tid,
        tid,
        thread.name if thread else "",
        times[State.RUNNING],
        times[State.RUNNABLE],
        times[State.BLOCKED],
        reasons.most_common(),
        switches,
    )


def _table(report: TimelineTable, console: Console) -> list[Text]:
    rows = report.rows
    return layout(
        [
            names("thread", (f"{row.name}/{row.tid}" for row in rows)),
            quantities("running", [row.running_ns for row in rows]),
            shares("share", (row.running_ns for row in rows), report.duration_ns),
            quantities("runnable", [row.runnable_ns for row in rows]),
            quantities("blocked", [row.blocked_ns for row in rows]),
            names("blocked in", map(_reasons, rows)),
        ],
        console,
    )


def _reasons(row: Row) -> str:
    return ", ".join(f"{what} {format_short(time_ns, 'ns')}" for what, time_ns in row.reasons[:_MOST_REASONS])
