"""The interpreter lock: how busy it was, thread by thread, where they waited for it, and who held it meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.gil import UNSEEN, GilRecord, GilSlice, GilThread
from pprofpy.model.profile import Collection, Stack
from pprofpy.reports.columns import layout, names, numbers, quantities, shares
from pprofpy.reports.losses import sentences
from pprofpy.reports.text import more_rows, write_lines
from pprofpy.units import NS_PER_S, format_duration

DEFAULT_ROWS = 10

_BARS = " ▁▂▃▄▅▆▇█"
_CHART_WIDTH = 55
NO_FRAME = "(no Python function)"


@dataclass(slots=True)
class PlaceRow:
    """A line of the program where threads waited for the lock: exact."""

    place: str
    count: int = 0
    total_ns: int = 0
    max_ns: int = 0


@dataclass(slots=True)
class HoldRow:
    """A line of the program where the lock was held: sampled while running, exact while off-CPU."""

    place: str
    on_ns: int = 0
    off_ns: int = 0


@dataclass(slots=True)
class PairRow:
    """Who held the lock while who waited, and for how long."""

    holder: str
    waiter: str
    total_ns: int = 0


@dataclass(frozen=True, slots=True)
class GilReport:
    """The report.

    Attributes:
        threads: Those that held the lock or waited for it, whoever waited longest first.
        places, holds, pairs: Longest first.
        hidden: How many further rows there are of each of these four.
        slices: What happened when.
        processes: How many took part: each has a lock of its own.
        held_share: Of the time; 1 means always. Of several locks the sum.
        waiting: How many threads waited on average.
        duration_ns: How long the recording lasted.
        collection: How it was recorded and what was lost.
    """

    threads: list[GilThread]
    places: list[PlaceRow]
    holds: list[HoldRow]
    pairs: list[PairRow]
    hidden: dict[str, int]
    slices: tuple[GilSlice, ...]
    processes: int
    held_share: float
    waiting: float
    duration_ns: int
    collection: Collection


def build(record: GilRecord, limit: int = DEFAULT_ROWS) -> GilReport:
    """Sum up a recording.

    Args:
        record: As `pprofpy gil` makes it.
        limit: Show at most this many rows of each table (0: all).
    """
    places: dict[str, PlaceRow] = {}
    for wait in record.waits:
        row = places.setdefault(place_of(wait.stack), PlaceRow(place_of(wait.stack)))
        row.count += wait.count
        row.total_ns += wait.total_ns
        row.max_ns = max(row.max_ns, wait.max_ns)
    holds: dict[str, HoldRow] = {}
    for hold in record.holds:
        held = holds.setdefault(place_of(hold.stack), HoldRow(place_of(hold.stack)))
        held.on_ns += hold.on_ns
        held.off_ns += hold.off_ns
    sums: defaultdict[tuple[str, str], int] = defaultdict(int)
    for wait, block, time_ns in record.waits_by_holder():
        sums[place_of(block.holder_stack) if block else UNSEEN.function.name, place_of(wait.stack)] += time_ns
    tables: dict[str, list[Any]] = {
        "threads": _longest((one for one in record.threads if one.held_ns or one.wait_ns), lambda one: one.wait_ns),
        "places": _longest(places.values(), lambda row: row.total_ns),
        "holds": _longest(holds.values(), lambda row: row.on_ns + row.off_ns),
        "pairs": _longest((PairRow(*key, total_ns) for key, total_ns in sums.items()), lambda row: row.total_ns),
    }
    length_ns = max(record.duration_ns, 1)
    return GilReport(
        **{name: rows[: limit or None] for name, rows in tables.items()},
        hidden={name: len(rows[limit:]) if limit else 0 for name, rows in tables.items()},
        slices=record.slices,
        processes=len({one.pid for one in tables["threads"]}),
        held_share=sum(thread.held_ns for thread in record.threads) / length_ns,
        waiting=sum(thread.wait_ns for thread in record.threads) / length_ns,
        duration_ns=record.duration_ns,
        collection=record.collection,
    )


def place_of(stack: Stack) -> str:
    """A stack's innermost function and line, in words."""
    if not stack:
        return NO_FRAME
    return f"{stack[0].function.name}:{stack[0].line}" if stack[0].line else stack[0].function.name


def render(report: GilReport, console: Console, *, by_interval: bool = False) -> None:
    """Print the tables, 80 columns wide.

    Args:
        report: What `build` made.
        console: Where to.
        by_interval: A table of the slices instead of a picture.
    """
    several = report.processes > 1
    whose = f"The GILs of {report.processes} processes:" if several else "The GIL of"
    title = f"{whose} {report.collection.target}{' and its children' * several}, {format_duration(report.duration_ns)}"
    losses = sentences(report.collection)
    summary = f"Held {report.held_share:.1%} of the time; {report.waiting:.2f} threads waited for it on average."
    write_lines(console, [title, summary, *losses, ""])
    write_lines(
        console,
        _slice_table(report.slices, report.processes, console)
        if by_interval
        else _chart(report.slices, report.processes),
    )
    write_lines(console, ["", *_thread_table(report.threads, console, with_pids=several)])
    write_lines(console, more_rows(report.hidden["threads"]))
    write_lines(console, ["", *_place_table(report.places, console)])
    write_lines(console, more_rows(report.hidden["places"]))
    write_lines(console, ["", *_hold_table(report.holds, console)])
    write_lines(console, more_rows(report.hidden["holds"]))
    write_lines(console, ["", *_pair_table(report.pairs, sum(row.total_ns for row in report.places), console)])
    write_lines(console, more_rows(report.hidden["pairs"]))


def to_json(report: GilReport) -> dict[str, Any]:
    """Return the report as data for JSON; times in nanoseconds."""
    data = asdict(report)
    for row, thread in zip(data["threads"], report.threads, strict=True):
        row["held_ns"] = thread.held_ns
    data["collection"] = {name: value for name, value in data["collection"].items() if value not in (-1, "", (), {})}
    return data


def _longest(rows: Iterable[Any], time_ns: Callable[[Any], int]) -> list[Any]:
    return sorted(rows, key=time_ns, reverse=True)


def _chart(slices: tuple[GilSlice, ...], locks: int) -> list[str]:
    """Two rows of bars: how much of the time the locks were held, and how many threads waited for them."""
    if not slices:
        return []
    columns = [_average(slices[first:last]) for first, last in _columns(len(slices))]
    most = max(1.0, *(waiting for _, waiting in columns))
    held = "".join(_bar(share / max(locks, 1)) for share, _ in columns)
    waiting = "".join(_bar(one / most) for _, one in columns)
    return [f"   held {held} of {100 * max(locks, 1)}%", f"waiting {waiting} of {most:.1f} threads"]


def _columns(count: int) -> list[tuple[int, int]]:
    width = min(count, _CHART_WIDTH)
    return [(place * count // width, (place + 1) * count // width) for place in range(width)]


def _average(slices: tuple[GilSlice, ...]) -> tuple[float, float]:
    length_ns = slices[-1].end_ns - slices[0].start_ns
    return sum(one.held_ns for one in slices) / length_ns, sum(one.wait_ns for one in slices) / length_ns


def _bar(share: float) -> str:
    return _BARS[min(round(share * 8 + 0.25), 8)]


def _slice_table(slices: tuple[GilSlice, ...], locks: int, console: Console) -> list[Text]:
    averages = [_average((one,)) for one in slices]
    return layout(
        [
            numbers("from", (f"{one.start_ns / NS_PER_S:.2f}s" for one in slices)),
            numbers("to", (f"{one.end_ns / NS_PER_S:.2f}s" for one in slices)),
            numbers("held", (f"{min(share, locks):.1%}" for share, _ in averages)),
            numbers("threads waiting", (f"{waiting:.2f}" for _, waiting in averages)),
        ],
        console,
    )


def _thread_table(threads: list[GilThread], console: Console, *, with_pids: bool) -> list[Text]:
    return layout(
        [
            *([numbers("pid", (one.pid for one in threads))] if with_pids else []),
            numbers("tid", (one.tid if one.tid > 0 else "(ended)" for one in threads)),
            names("thread", (one.name for one in threads)),
            quantities("held", [one.held_ns for one in threads]),
            quantities("running", [one.held_on_ns for one in threads]),
            quantities("waited", [one.wait_ns for one in threads]),
            numbers("waits", (one.wait_count for one in threads)),
            quantities("avg", [one.wait_ns // max(one.wait_count, 1) for one in threads]),
            quantities("longest", [one.wait_max_ns for one in threads]),
        ],
        console,
    )


def _place_table(rows: list[PlaceRow], console: Console) -> list[Text]:
    return layout(
        [
            quantities("waited", [row.total_ns for row in rows]),
            numbers("waits", (row.count for row in rows)),
            quantities("avg", [row.total_ns // max(row.count, 1) for row in rows]),
            quantities("longest", [row.max_ns for row in rows]),
            names("waited for the GIL in", (row.place for row in rows)),
        ],
        console,
    )


def _hold_table(rows: list[HoldRow], console: Console) -> list[Text]:
    return layout(
        [
            quantities("held", [row.on_ns + row.off_ns for row in rows]),
            quantities("running", [row.on_ns for row in rows]),
            quantities("off cpu", [row.off_ns for row in rows]),
            names("held the GIL in", (row.place for row in rows)),
        ],
        console,
    )


def _pair_table(rows: list[PairRow], total_ns: int, console: Console) -> list[Text]:
    return layout(
        [
            quantities("blocked", [row.total_ns for row in rows]),
            shares("share", (row.total_ns for row in rows), total_ns),
            names("held in", (row.holder for row in rows)),
            names("while waited in", (row.waiter for row in rows)),
        ],
        console,
    )
