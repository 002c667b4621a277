"""Off-CPU time: by thread and state; by reason and place, with the waker; and as chains."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text

from pprofpy.errors import ProfileFormatError
from pprofpy.model.profile import Collection, LabelSet, Profile, Stack
from pprofpy.model.waits import STATES, unchain
from pprofpy.reports.columns import Column, layout, names, numbers, quantities
from pprofpy.reports.losses import sentences
from pprofpy.reports.origin import is_own
from pprofpy.reports.stack_lines import below, line, one_line, stack_json, stack_width
from pprofpy.reports.text import more_rows, write_lines
from pprofpy.text import without_numbers
from pprofpy.units import format_duration

DEFAULT_ROWS = 15

_SMALLEST_POOL = 3
_NOBODY = ("timer/irq", "softirq")
"""Who ended a wait without being a thread: no link of a chain."""

_SYSTEM_CALL = re.compile(r"__(?:x64|ia32)_sys_(\w+)")


@dataclass(slots=True)
class ThreadRow:
    """One thread, or several.

    Attributes:
        pid, tid, name: Who.
        threads: How many: more than one for a pool, and for those that did not run; 0 if nobody knows.
        count: How many off-CPU intervals it had, run-queue waits included.
        total_ns: How long in all.
        by_state_ns: Its off-CPU time in each of STATES.
    """

    pid: int
    tid: int
    name: str
    count: int = 0
    total_ns: int = 0
    by_state_ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    threads: int = 1

    def add(self, other: ThreadRow) -> None:
        """Sum up another thread's times."""
        self.threads = self.threads + other.threads if self.threads and other.threads else 0
        self.count += other.count
        self.total_ns += other.total_ns
        for state, time_ns in other.by_state_ns.items():
            self.by_state_ns[state] = self.by_state_ns.get(state, 0) + time_ns


@dataclass(slots=True)
class ReasonRow:
    """One reason to be off the CPU: what was waited for, and where.

    Attributes:
        state: One of STATES.
        reason: Such as `lock`; empty in profiles of other programs.
        place: The line that waited; without Python, the kernel's function.
        waker: Who ended it, in words; empty where wakers were not asked for: there is one row a place then.
    """

    state: str
    reason: str
    place: str
    waker: str
    count: int = 0
    total_ns: int = 0


@dataclass(slots=True)
class ChainRow:
    """A stack that waited, and the one that ended it. Both leaf-first.

    Attributes:
        reason: What was waited for.
        blocked: The stack that waited.
        woken_by: The stack that ended it; where there is none, who ended it is its only frame.
    """

    reason: str
    blocked: Stack
    woken_by: Stack
    count: int = 0
    total_ns: int = 0


@dataclass(frozen=True, slots=True)
class OffCpu:
    """The report.

    Attributes:
        threads, places, chains: Longest first; chains only where wakers were recorded, and only between threads.
        hidden_threads, hidden_places, hidden_chains: How many further rows there are.
        total_ns: All off-CPU time.
        duration_ns: How long the recording lasted.
        collection: How it was recorded and what was lost.
    """

    threads: list[ThreadRow]
    places: list[ReasonRow]
    chains: list[ChainRow]
    hidden_threads: int
    hidden_places: int
    hidden_chains: int
    total_ns: int
    duration_ns: int
    collection: Collection


def build(profile: Profile, limit: int = DEFAULT_ROWS, *, by_waker: bool = False, pools: bool = False) -> OffCpu:
    """Sum up a profile of `contentions/count, delay/nanoseconds`.

    Args:
        profile: As `pprofpy off-cpu` records it.
        limit: Show at most this many rows of each table (0: all).
        by_waker: Tell places apart by who ended the waits.
        pools: Sum up threads whose names differ in numbers alone.

    Raises:
        ProfileFormatError: It has other sample types.
    """
    if len(profile.sample_types) != 2:
        raise ProfileFormatError("this is no recording of 'pprofpy off-cpu': it has other sample types")
    threads: dict[tuple[int, str], ThreadRow] = {}
    places: dict[tuple[str, ...], ReasonRow] = {}
    chains: dict[tuple[str, Stack, Stack], ChainRow] = {}
    for stack, (count, time_ns), labels in profile.samples():
        facts = _facts(labels)
        blocked, woken_by = unchain(stack)
        state, reason = str(facts["state"]), str(facts["reason"])
        tid = _number(facts, "tid")
        whose = tid, "" if tid else str(facts["thread"])  # 0: threads of that name that have ended
        thread = threads.setdefault(whose, _thread_row(facts))
        thread.by_state_ns[state] = thread.by_state_ns.get(state, 0) + time_ns
        place = state, reason, _place(blocked), str(facts["waker"]) if by_waker else ""
        rows: list[Any] = [thread, places.setdefault(place, ReasonRow(*place))]
        if woken_by and facts["waker"] not in _NOBODY:
            chain = reason, _without_pseudo_frames(blocked), woken_by
            rows.append(chains.setdefault(chain, ChainRow(*chain)))
        for row in rows:
            row.count += count
            row.total_ns += time_ns
    rows_of_threads = _by_pool(threads.values()) if pools else threads.values()
    shown_threads, hidden_threads = _longest(rows_of_threads, limit)
    shown_places, hidden_places = _longest(places.values(), limit)
    shown_chains, hidden_chains = _longest(chains.values(), limit)
    return OffCpu(
        shown_threads,
        shown_places,
        shown_chains,
        hidden_threads,
        hidden_places,
        hidden_chains,
        sum(row.total_ns for row in threads.values()),
        profile.duration_ns,
        profile.collection,
    )


def render(report: OffCpu, console: Console) -> None:
    """Print the tables; no line of a terminal of 80 columns wraps."""
    title = f"Off-CPU time: {report.collection.target}, {format_duration(report.duration_ns)}"
    losses = sentences(report.collection)
    if not report.threads:
        write_lines(console, [title, *losses, "No off-CPU intervals."])
        return
    write_lines(console, [title, *losses, "", *_thread_table(report.threads, console)])
    write_lines(console, more_rows(report.hidden_threads))
    write_lines(console, ["", *_place_table(report.places, console)])
    write_lines(console, more_rows(report.hidden_places))
    if report.chains:
        write_lines(console, ["", *_chain_table(report.chains, console)])
        write_lines(console, more_rows(report.hidden_chains))


def to_json(report: OffCpu) -> dict[str, Any]:
    """The report for programs; times in nanoseconds."""
    data = asdict(replace(report, chains=[]))
    data["chains"] = [_chain_json(row) for row in report.chains]
    data["collection"] = {name: value for name, value in data["collection"].items() if value not in (-1, "", (), {})}
    return data


def _facts(labels: LabelSet) -> defaultdict[str, Any]:
    return defaultdict(str, {label.key: label.value for label in labels if label.value != ""})


def _thread_row(facts: defaultdict[str, Any]) -> ThreadRow:
    tid = _number(facts, "tid")
    return ThreadRow(_number(facts, "pid"), tid, str(facts["thread"]), threads=1 if tid else _number(facts, "threads"))


def _by_pool(threads: Iterable[ThreadRow]) -> list[ThreadRow]:
    """One row for each pool: the threads of a process whose names differ in their numbers alone, from three on.

    The main thread is in none: where threads have no names of their own, all are called as the program.
    """
    pools: defaultdict[tuple[int, str], list[ThreadRow]] = defaultdict(list)
    for row in threads:
        pools[row.pid, "" if row.tid == row.pid else without_numbers(row.name)].append(row)
    found = []
    for (_, name), rows in pools.items():
        if len(rows) < _SMALLEST_POOL:
            found += rows
            continue
        pool = replace(rows[0], tid=0, by_state_ns=dict(rows[0].by_state_ns))
        for row in rows[1:]:
            pool.name = pool.name if row.name == pool.name else name
            pool.add(row)
        found.append(pool)
    return found


def _number(facts: dict[str, str | int], key: str) -> int:
    """A label that should be a number; 0 where it is none: the file may come from elsewhere."""
    value = facts.get(key, 0)
    return value if isinstance(value, int) else 0


_AnyRow = TypeVar("_AnyRow", ThreadRow, ReasonRow, ChainRow)


def _longest(rows: Iterable[_AnyRow], limit: int) -> tuple[list[_AnyRow], int]:
    """The rows with the most time, and how many further ones there are."""
    ordered = sorted(rows, key=lambda row: -row.total_ns)
    shown = ordered[: limit or None]
    return shown, len(ordered) - len(shown)


def _place(stack: Stack) -> str:
    """The line that waited: the user's own that is next to the leaf, or else Python's. Without Python, the system call.

    And the kernel function in it that gave up the CPU; without a system call, the innermost function.
    """
    python = [frame for frame in stack if frame.function.filename]
    if python:
        return line(next(filter(is_own, python), python[0]))
    names = [frame.function.name for frame in stack]
    calls = (match[1] for name in names if (match := _SYSTEM_CALL.fullmatch(name)))
    call = next(calls, "")
    leaf = names[0] if names else "?"
    return f"{call}: {leaf}" if call and not leaf.endswith(f"sys_{call}") else call or leaf


def _without_pseudo_frames(stack: Stack) -> Stack:
    """Without the reason on top, which has its own column."""
    python = tuple(frame for frame in stack if frame.function.filename)
    return python or stack


def _thread_table(rows: list[ThreadRow], console: Console) -> list[Text]:
    who = (row.tid or (f"({row.threads:,})" if row.threads else "(ended)") for row in rows)
    times = [[row.by_state_ns.get(state, 0) for row in rows] for state in STATES]
    columns = [
        numbers("tid", who),
        names("thread", (row.name for row in rows)),
        numbers("times", (row.count for row in rows)),
        quantities("off cpu", [row.total_ns for row in rows]),
        *map(quantities, ("sleeping", "disk", "run queue"), times),
    ]
    return layout(columns, console)


def _place_table(rows: list[ReasonRow], console: Console) -> list[Text]:
    columns = [
        *_sums(rows),
        names("reason", (row.reason or row.state for row in rows)),
        names("where", (row.place for row in rows)),
    ]
    if any(row.waker for row in rows):
        columns.append(names("ended by", (row.waker for row in rows)))
    return layout(columns, console)


def _chain_table(rows: list[ChainRow], console: Console) -> list[Text]:
    width = stack_width(console)
    heading, *lines = layout(
        [
            *_sums(rows),
            names("reason", (row.reason for row in rows)),
            names("what waited, and what ended it", (one_line(row.blocked, width) for row in rows)),
        ],
        console,
    )
    return [
        heading,
        *(
            line
            for row, first in zip(rows, lines, strict=True)
            for line in (first, below("ended by", row.woken_by, console))
        ),
    ]


def _sums(rows: Sequence[ReasonRow | ChainRow]) -> list[Column]:
    return [
        quantities("total", [row.total_ns for row in rows]),
        numbers("times", (row.count for row in rows)),
        quantities("avg", [row.total_ns // max(row.count, 1) for row in rows]),
    ]


def _chain_json(row: ChainRow) -> dict[str, Any]:
    stacks = {"blocked": stack_json(row.blocked), "woken_by": stack_json(row.woken_by)}
    return {"reason": row.reason, "count": row.count, "total_ns": row.total_ns, **stacks}
