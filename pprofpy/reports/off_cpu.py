"""Time off the CPU: by thread, split by what kept it off; and by place, with who ended the wait."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.profile import Collection, LabelSet, Profile, Stack
from pprofpy.reports.text import printable, shorten, write_lines
from pprofpy.units import format_duration, format_short

DEFAULT_ROWS = 15
STATES = ("sleeping", "disk", "runqueue")

_NAME_WIDTH, _PLACE_WIDTH, _WAKER_WIDTH = 15, 27, 19
_SYSTEM_CALL = re.compile(r"__(?:x64|ia32)_sys_(\w+)")


@dataclass(slots=True)
class ThreadRow:
    """One thread.

    Attributes:
        pid, tid, name: Who.
        count: How many times it was off the CPU or waited in the run queue.
        total_ns: How long in all.
        by_state_ns: The same for each of STATES.
    """

    pid: int
    tid: int
    name: str
    count: int = 0
    total_ns: int = 0
    by_state_ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))


@dataclass(slots=True)
class PlaceRow:
    """One reason to be off the CPU: the state, the place in the kernel, and who ended it."""

    state: str
    place: str
    waker: str
    count: int = 0
    total_ns: int = 0


@dataclass(frozen=True, slots=True)
class OffCpu:
    """The report.

    Attributes:
        threads, places: Longest first.
        hidden_threads, hidden_places: How many further rows there are.
        total_ns: All time off the CPU.
        duration_ns: How long the recording lasted.
        collection: How it was recorded and what was lost.
    """

    threads: list[ThreadRow]
    places: list[PlaceRow]
    hidden_threads: int
    hidden_places: int
    total_ns: int
    duration_ns: int
    collection: Collection


def build(profile: Profile, limit: int = DEFAULT_ROWS) -> OffCpu:
    """Sum up a profile of `contentions/count, delay/nanoseconds`.

    Args:
        profile: As `pprofpy off-cpu` records it.
        limit: So many rows in each table; 0 for all.
    """
    threads: dict[int, ThreadRow] = {}
    places: dict[tuple[str, str, str], PlaceRow] = {}
    for stack, (count, time_ns), labels in profile.samples():
        facts = _facts(labels)
        state = str(facts.get("state", ""))
        pid, tid = int(facts.get("pid", 0)), int(facts.get("tid", 0))
        thread = threads.setdefault(tid, ThreadRow(pid, tid, str(facts.get("thread", ""))))
        thread.count += count
        thread.total_ns += time_ns
        thread.by_state_ns[state] = thread.by_state_ns.get(state, 0) + time_ns
        key = state, _place(stack), str(facts.get("waker", ""))
        place = places.setdefault(key, PlaceRow(*key))
        place.count += count
        place.total_ns += time_ns
    by_time: Callable[[Any], int] = lambda row: -row.total_ns  # noqa: E731 - a key for two sorts
    all_threads, all_places = sorted(threads.values(), key=by_time), sorted(places.values(), key=by_time)
    shown = limit or None
    return OffCpu(
        all_threads[:shown],
        all_places[:shown],
        len(all_threads[shown:]) if shown else 0,
        len(all_places[shown:]) if shown else 0,
        sum(row.total_ns for row in all_threads),
        profile.duration_ns,
        profile.collection,
    )


def render(report: OffCpu, console: Console) -> None:
    """Print both tables, 80 columns wide."""
    title = f"Time off the CPU: {report.collection.target}, {format_duration(report.duration_ns)}"
    losses = [printable(note[0].upper() + note[1:]) for note in report.collection.notes]
    if not report.threads:
        write_lines(console, [printable(title), *losses, "No thread was off the CPU."])
        return
    heading = f"{'tid':>7} {'thread':{_NAME_WIDTH}} {'times':>8} {'off cpu':>8} {'sleeping':>9} {'disk':>8} {'run queue':>10}"
    write_lines(console, [printable(title), *losses, "", Text(heading, "bold")])
    write_lines(console, [_thread_line(row) for row in report.threads])
    write_lines(console, _more(report.hidden_threads))
    heading = f"{'total':>8} {'times':>8} {'avg':>7} {'state':9} {'where':{_PLACE_WIDTH}} ended by"
    write_lines(console, ["", Text(heading, "bold"), *(_place_line(row) for row in report.places)])
    write_lines(console, _more(report.hidden_places))


def to_json(report: OffCpu) -> dict[str, Any]:
    """The report for programs; times in nanoseconds."""
    data = asdict(report)
    data["collection"] = {name: value for name, value in data["collection"].items() if value not in (-1, "", ())}
    return data


def _facts(labels: LabelSet) -> defaultdict[str, Any]:
    return defaultdict(str, {label.key: label.value for label in labels if label.value != ""})


def _place(stack: Stack) -> str:
    """The system call, and the kernel function in it that gave up the CPU; without one, the innermost function."""
    names = [frame.function.name for frame in stack]
    calls = (match[1] for name in names if (match := _SYSTEM_CALL.fullmatch(name)))
    call = next(calls, "")
    leaf = names[0] if names else "?"
    return f"{call}: {leaf}" if call and not leaf.endswith(f"sys_{call}") else call or leaf


def _thread_line(row: ThreadRow) -> str:
    times = [row.total_ns, *(row.by_state_ns.get(state, 0) for state in STATES)]
    total, sleeping, disk, queue = (format_short(one, "ns") for one in times)
    who = f"{row.tid:>7} {shorten(printable(row.name), _NAME_WIDTH):{_NAME_WIDTH}}"
    return f"{who} {row.count:>8} {total:>8} {sleeping:>9} {disk:>8} {queue:>10}"


def _place_line(row: PlaceRow) -> str:
    total, average = format_short(row.total_ns, "ns"), format_short(row.total_ns // max(row.count, 1), "ns")
    place = shorten(printable(row.place), _PLACE_WIDTH)
    waker = shorten(printable(row.waker), _WAKER_WIDTH)
    return f"{total:>8} {row.count:>8} {average:>7} {row.state:9} {place:{_PLACE_WIDTH}} {waker}".rstrip()


def _more(hidden: int) -> list[Text]:
    return [Text(f"{'':8}… {hidden} more: -n 0 shows all", "dim")] if hidden else []
