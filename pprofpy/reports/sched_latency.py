"""How long threads (or processes) waited for a CPU, and how these waits are spread."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.latency import (
    LatencyRecord,
    LongWait,
    StackWaits,
    ThreadWaits,
    Waits,
    merge_threads,
    process_names,
    sum_stacks,
)
from pprofpy.model.profile import Collection
from pprofpy.reports import histogram
from pprofpy.reports.columns import Column, layout, names, numbers, quantities
from pprofpy.reports.histogram import Bar
from pprofpy.reports.losses import sentences
from pprofpy.reports.stack_lines import below, one_line, stack_json, stack_width
from pprofpy.reports.text import more_rows, write_lines
from pprofpy.text import printable
from pprofpy.units import NS_PER_S, format_duration, format_short

DEFAULT_ROWS = 20
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}

_NOTABLE_NS = 100_000_000
"""A wait that is not over yet is worth a line if it is as long as this."""
_TALKATIVE = 2
"""So many of those who had the CPU during a long wait are named; the rest is summed up."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thread, one process, or all that found no place in the table.

    Attributes:
        pid, tid: Who; 0 for a sum over several.
        name: Its name.
        thread_count: How many threads it stands for.
        waits: All of its waits.
        quantiles_ns: One for each of QUANTILES.
        woken, preempted: The same waits by how they began.
        migrations: How often it came to run on another CPU.
        max_at_ns: When its longest wait ended, since the beginning of the recording.
        waiting_ns: How long it has been waiting, if it is now.
    """

    pid: int
    tid: int
    name: str
    thread_count: int
    waits: Waits
    quantiles_ns: list[int]
    woken: Waits
    preempted: Waits
    migrations: int
    max_at_ns: int
    waiting_ns: int


@dataclass(frozen=True, slots=True)
class SchedLatency:
    """The report.

    Attributes:
        per_process: Rows are processes, not threads.
        start_ns, time_ns: When the recording began: monotonic clock, Unix time.
        duration_ns: How long it lasted.
        rows: Those who waited longest in all first.
        rest: The sum of all further ones, None if there are none.
        total: The sum of everything.
        bars: The distribution of all waits.
        stacks: The waits by Python stack, those with the most time first; empty if that was not recorded.
        hidden_stacks: How many further ones there are.
        collection: How it was recorded and what was lost.
    """

    per_process: bool
    start_ns: int
    time_ns: int
    duration_ns: int
    rows: list[Row]
    rest: Row | None
    total: Row
    bars: list[Bar]
    collection: Collection
    stacks: list[StackWaits]
    hidden_stacks: int


def build(record: LatencyRecord, limit: int = DEFAULT_ROWS) -> SchedLatency:
    """Choose, sum up and sort.

    Args:
        record: What was recorded.
        limit: Show at most this many rows (0: all).
    """
    groups = _by_process(record.threads) if record.per_process else [(one, 1) for one in record.threads]
    groups = [(one, size) for one, size in groups if one.woken.count or one.preempted.count or one.waiting_ns]
    groups.sort(key=lambda group: (-group[0].woken.total_ns - group[0].preempted.total_ns, group[0].tid))
    shown = groups[: limit or None]
    others = groups[len(shown) :]
    kind = "processes" if record.per_process else "threads"
    total = _sum(f"all {kind}", groups, record)
    stacks = sorted(_same_stacks(record.stacks), key=lambda one: -one.total_ns)
    return SchedLatency(
        record.per_process,
        record.start_ns,
        record.time_ns,
        record.duration_ns,
        [_row(one, size, record) for one, size in shown],
        _sum(f"{len(others)} more", others, record) if others else None,
        total,
        histogram.build(total.waits.histogram),
        record.collection,
        stacks[: limit or None],
        len(stacks[limit:]) if limit else 0,
    )


def render(report: SchedLatency, console: Console, *, with_histogram: bool = True) -> None:
    """Print the tables, 80 columns wide."""
    if not report.total.waits.count:
        write_lines(console, ["Nobody waited for a CPU.", *_losses(report)])
        return
    rows = [*report.rows, *([report.rest] if report.rest else []), *([report.total] if len(report.rows) > 1 else [])]
    write_lines(console, [_title(report), *_losses(report), ""])
    write_lines(console, _latency_table(rows, report, console))
    if with_histogram:
        write_lines(console, ["", *_kind_table(rows, report, console), ""])
        histogram.render(report.bars, console)
    if report.stacks and with_histogram:
        write_lines(console, ["", *_stack_lines(report, console)])
    still = [row for row in report.rows if row.waiting_ns >= _NOTABLE_NS] if with_histogram else []
    write_lines(console, (_still_waiting(row) for row in still))


def to_json(report: SchedLatency) -> dict[str, Any]:
    """The report for programs; times in nanoseconds."""
    collection = asdict(report.collection)
    return {
        "time_ns": report.time_ns,
        "duration_ns": report.duration_ns,
        "collection": {name: value for name, value in collection.items() if value not in (-1, "", (), {})},
        "rows": [_row_json(row) for row in report.rows],
        "rest": _row_json(report.rest) if report.rest else None,
        "total": _row_json(report.total),
        "histogram": histogram.to_json(report.bars),
        "stacks": [_stack_json(one) for one in report.stacks],
    }


# -- waits above the threshold -----------------------------------------------------------------------------------------


def render_long_waits(waits: Iterable[LongWait], start_ns: int, console: Console) -> None:
    """Print each wait: when, how long, who; then who had the CPU meanwhile and who ended the sleep before it."""
    for wait in waits:
        who = f"{printable(wait.name)} ({wait.tid})"
        how = "preempted" if wait.was_preempted else f"woken by {_waker(wait)}"
        came = f", came from cpu {wait.cpu_before}" if wait.cpu_before not in (-1, wait.cpu) else ""
        when = _since(wait.end_ns, start_ns)
        first = Text.assemble(f"{when:>10} ", (f"{format_short(wait.wait_ns, 'ns'):>7}", "bold"), f"  {who} {how}")
        write_lines(console, [first, Text(f"{'':20}cpu {wait.cpu} ran {_who_ran(wait)}{came}", "dim")])
        for what, stack in (("at", wait.stack), ("woken at", wait.waker_stack)):
            if stack:
                write_lines(console, [below(what, stack, console, indent=20)])


def long_wait_json(wait: LongWait, start_ns: int) -> dict[str, Any]:
    """A long wait for programs; times in nanoseconds, `at_ns` since the recording began."""
    facts = asdict(replace(wait, stack=(), waker_stack=()))
    facts |= {"stack": stack_json(wait.stack), "waker_stack": stack_json(wait.waker_stack)}
    return {"at_ns": wait.end_ns - start_ns, **{key: value for key, value in facts.items() if key != "end_ns"}}


def _waker(wait: LongWait) -> str:
    if wait.waker == "irq":
        return "timer/irq"
    return f"{wait.waker} ({wait.waker_tid})" if wait.waker_tid else wait.waker or "unknown"


def _who_ran(wait: LongWait) -> str:
    """Who had the CPU, longest first; the same thread counted once."""
    times: defaultdict[tuple[str, int], int] = defaultdict(int)
    for one in wait.ran:
        times[one.name, one.tid] += one.duration_ns
    largest = sorted(times.items(), key=lambda item: -item[1])
    parts = [
        f"{name}{f' ({tid})' if tid else ''} {format_short(time_ns, 'ns')}"
        for (name, tid), time_ns in largest[:_TALKATIVE]
    ]
    hidden_ns = sum(time_ns for _, time_ns in largest[_TALKATIVE:]) + wait.unknown_ns
    if hidden_ns:
        parts.append(f"others {format_short(hidden_ns, 'ns')}")
    return ", ".join(parts)


# -- rows --------------------------------------------------------------------------------------------------------------


def _by_process(threads: Sequence[ThreadWaits]) -> list[tuple[ThreadWaits, int]]:
    """One entry for each process, with its number of threads; threads without a pid are sums already."""
    names = process_names(threads)
    groups: defaultdict[tuple[int, str], list[ThreadWaits]] = defaultdict(list)
    for one in threads:
        groups[one.pid, "" if one.pid else one.name].append(one)
    return [
        (merge_threads(pid, 0, names[pid] if pid else name, group), len(group)) for (pid, name), group in groups.items()
    ]


def _sum(name: str, groups: Sequence[tuple[ThreadWaits, int]], record: LatencyRecord) -> Row:
    return _row(merge_threads(0, 0, name, [one for one, _ in groups]), sum(size for _, size in groups), record)


def _row(one: ThreadWaits, thread_count: int, record: LatencyRecord) -> Row:
    waits = one.waits
    return Row(
        one.pid,
        one.tid,
        one.name,
        thread_count,
        waits,
        waits.quantiles_ns(list(QUANTILES.values())),
        one.woken,
        one.preempted,
        one.migrations,
        waits.max_at_ns - record.start_ns if waits.count else 0,
        one.waiting_ns,
    )


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "pid": row.pid,
        "tid": row.tid,
        "name": row.name,
        "threads": row.thread_count,
        **_waits_json(row.waits),
        **{f"{name.replace('.', '_')}_ns": value for name, value in zip(QUANTILES, row.quantiles_ns, strict=True)},
        "max_at_ns": row.max_at_ns,
        "woken": _waits_json(row.woken),
        "preempted": _waits_json(row.preempted),
        "migrations": row.migrations,
        "waiting_ns": row.waiting_ns,
    }


def _waits_json(waits: Waits) -> dict[str, int]:
    return {"count": waits.count, "total_ns": waits.total_ns, "avg_ns": waits.avg_ns, "max_ns": waits.max_ns}


# -- stacks ------------------------------------------------------------------------------------------------------------


def _same_stacks(stacks: Iterable[StackWaits]) -> list[StackWaits]:
    """The stacks of all threads, whatever their names."""
    return sum_stacks(replace(one, name="") for one in stacks if one.stack or one.waker_stack)


def _stack_lines(report: SchedLatency, console: Console) -> Iterator[Text]:
    stacks, width = report.stacks, stack_width(console)
    heading, *lines = layout(
        [
            quantities("total", [one.total_ns for one in stacks]),
            numbers("waits", (one.count for one in stacks)),
            quantities("avg", [round(one.total_ns / max(one.count, 1)) for one in stacks]),
            quantities("max", [one.max_ns for one in stacks]),
            names("", ("preempted" if one.was_preempted else "woken" for one in stacks)),
            names("where they waited", (one_line(one.stack, width) or "?" for one in stacks)),
        ],
        console,
    )
    yield heading
    for one, line in zip(stacks, lines, strict=True):
        yield line
        if one.waker_stack:
            yield below("woken by", one.waker_stack, console)
    yield from more_rows(report.hidden_stacks)


def _stack_json(one: StackWaits) -> dict[str, Any]:
    return {
        "kind": "preempted" if one.was_preempted else "woken",
        "count": one.count,
        "total_ns": one.total_ns,
        "max_ns": one.max_ns,
        "stack": stack_json(one.stack),
        "waker_stack": stack_json(one.waker_stack),
    }


# -- lines -------------------------------------------------------------------------------------------------------------


def _title(report: SchedLatency) -> str:
    started = time.strftime("%H:%M:%S", time.localtime(report.time_ns // NS_PER_S))
    waits = report.total.waits
    return (
        f"Waiting for a CPU: {report.collection.target}, {format_duration(report.duration_ns)} from {started}: "
        f"{format_short(waits.total_ns, 'ns')}"
    )


def _losses(report: SchedLatency) -> list[str]:
    return sentences(report.collection)


def _who(rows: Sequence[Row], report: SchedLatency) -> list[Column]:
    ids = ((row.pid if report.per_process else row.tid) or "" for row in rows)
    kinds = ("pid", "process") if report.per_process else ("tid", "thread")
    texts = ("all" if row is report.total else row.name for row in rows)
    return [numbers(kinds[0], ids), names(kinds[1], texts)]


def _latency_table(rows: Sequence[Row], report: SchedLatency, console: Console) -> list[Text]:
    times = {
        "avg": [row.waits.avg_ns for row in rows],
        **{name: [row.quantiles_ns[place] for row in rows] for place, name in enumerate(QUANTILES)},
        "max": [row.waits.max_ns for row in rows],
    }
    coloured = (replace(quantities(name, found), styles=list(map(_alarm, found))) for name, found in times.items())
    return layout([*_who(rows, report), numbers("waits", (row.waits.count for row in rows)), *coloured], console)


def _kind_table(rows: Sequence[Row], report: SchedLatency, console: Console) -> list[Text]:
    """How the waits began: after a sleep, or because another thread took the CPU."""
    kinds = {"woken": [row.woken for row in rows], "preempted": [row.preempted for row in rows]}
    columns = [
        column
        for kind, waits in kinds.items()
        for column in (
            numbers(kind, (one.count for one in waits)),
            quantities("avg", [one.avg_ns for one in waits]),
            quantities("max", [one.max_ns for one in waits]),
        )
    ]
    moves = numbers("moves", (row.migrations for row in rows))
    at = numbers("max at", (_since(row.max_at_ns, 0) if row.waits.count else "" for row in rows))
    return layout([*_who(rows, report), *columns, moves, at], console)


def _still_waiting(row: Row) -> Text:
    return Text(
        f"{row.name} ({row.tid or row.pid}) has been waiting for {format_short(row.waiting_ns, 'ns')} "
        "when the recording ended.",
        "yellow",
    )


def _since(at_ns: int, start_ns: int) -> str:
    return f"{(at_ns - start_ns) / NS_PER_S:.3f}s"


def _alarm(wait_ns: int) -> str:
    """The style of a wait: what a user would feel stands out."""
    return "bold red" if wait_ns >= 50_000_000 else "yellow" if wait_ns >= 5_000_000 else ""
