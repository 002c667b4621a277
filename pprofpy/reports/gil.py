"""The interpreter lock: how busy it was, thread by thread, where they waited for it, and who held it meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.gil import UNSEEN, GilRecord, GilSlice, GilThread
from pprofpy.model.profile import Collection, Stack
from pprofpy.reports.losses import sentences
from pprofpy.reports.text import more_rows, shorten, write_lines
from pprofpy.units import NS_PER_S, format_duration, format_short

DEFAULT_ROWS = 10

_BARS = " ▁▂▃▄▅▆▇█"
_CHART_WIDTH = 55
_NAME_WIDTH, _PLACE_WIDTH, _PAIR_WIDTH = 15, 40, 29
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
        _slice_table(report.slices, report.processes) if by_interval else _chart(report.slices, report.processes),
    )
    heading = (
        f"{'tid':>7} {'thread':{_NAME_WIDTH}} {'held':>8} {'running':>8} {'waited':>8} {'waits':>7} {'avg':>7} longest"
    )
    threads = [replace(one, name=f"{one.pid} {one.name}") for one in report.threads] if several else report.threads
    write_lines(console, ["", Text(heading, "bold"), *map(_thread_line, threads)])
    write_lines(console, more_rows(report.hidden["threads"]))
    heading = f"{'waited':>8} {'waits':>7} {'avg':>7} {'longest':>8}  waited for the GIL in"
    write_lines(console, ["", Text(heading, "bold"), *map(_place_line, report.places)])
    write_lines(console, more_rows(report.hidden["places"]))
    heading = f"{'held':>8} {'running':>8} {'off cpu':>8}  held the GIL in"
    write_lines(console, ["", Text(heading, "bold"), *map(_hold_line, report.holds)])
    write_lines(console, more_rows(report.hidden["holds"]))
    total_ns = sum(row.total_ns for row in report.places)
    heading = f"{'blocked':>8} {'share':>6}  {'held in':{_PAIR_WIDTH}}  while waited in"
    write_lines(console, ["", Text(heading, "bold"), *(_pair_line(row, total_ns) for row in report.pairs)])
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


def _slice_table(slices: tuple[GilSlice, ...], locks: int) -> list[Text | str]:
    heading: Text | str = Text(f"{'from':>9} {'to':>9} {'held':>7} {'threads waiting':>16}", "bold")
    lines = (
        f"{one.start_ns / NS_PER_S:>8.2f}s {one.end_ns / NS_PER_S:>8.2f}s {min(share, locks):>7.1%} {waiting:>16.2f}"
        for one in slices
        for share, waiting in (_average((one,)),)
    )
    return [heading, *lines]


def _thread_line(thread: GilThread) -> str:
    held, running, waited = (format_short(one, "ns") for one in (thread.held_ns, thread.held_on_ns, thread.wait_ns))
    average = format_short(thread.wait_ns // max(thread.wait_count, 1), "ns")
    name = shorten(thread.name, _NAME_WIDTH)
    return (
        f"{max(thread.tid, 0):>7} {name:{_NAME_WIDTH}} {held:>8} {running:>8} {waited:>8} {thread.wait_count:>7} "
        f"{average:>7} {format_short(thread.wait_max_ns, 'ns'):>7}"
    )


def _place_line(row: PlaceRow) -> str:
    times = (row.total_ns, row.total_ns // max(row.count, 1), row.max_ns)
    total, average, longest = (format_short(one, "ns") for one in times)
    return f"{total:>8} {row.count:>7} {average:>7} {longest:>8}  {shorten(row.place, _PLACE_WIDTH)}"


def _hold_line(row: HoldRow) -> str:
    total, running, off = (format_short(one, "ns") for one in (row.on_ns + row.off_ns, row.on_ns, row.off_ns))
    return f"{total:>8} {running:>8} {off:>8}  {shorten(row.place, _PLACE_WIDTH)}"


def _pair_line(row: PairRow, total_ns: int) -> str:
    holder, waiter = (shorten(one, _PAIR_WIDTH) for one in (row.holder, row.waiter))
    share = f"{row.total_ns / max(total_ns, 1):.1%}"
    return f"{format_short(row.total_ns, 'ns'):>8} {share:>6}  {holder:{_PAIR_WIDTH}}  {waiter}"
