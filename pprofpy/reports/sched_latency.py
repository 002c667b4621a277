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
from pprofpy.reports.histogram import Bar
from pprofpy.reports.losses import sentences
from pprofpy.reports.stack_lines import one_line, stack_json
from pprofpy.reports.text import more_rows, shorten, write_lines
from pprofpy.units import NS_PER_S, format_duration, format_short

DEFAULT_ROWS = 20
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}

_NAME_WIDTH = 15
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
    write_lines(console, [Text(_heading(report), "bold"), *(_latency_line(row, report) for row in rows)])
    if with_histogram:
        write_lines(console, ["", *_kind_headings(), *(_kind_line(row, report) for row in rows), ""])
        histogram.render(report.bars, console)
    if report.stacks and with_histogram:
        write_lines(console, ["", *_stack_lines(report)])
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
        who = f"{shorten(wait.name, _NAME_WIDTH)} ({wait.tid})"
        how = "preempted" if wait.was_preempted else f"woken by {_waker(wait)}"
        came = f", came from cpu {wait.cpu_before}" if wait.cpu_before not in (-1, wait.cpu) else ""
        when = _since(wait.end_ns, start_ns)
        first = Text.assemble(f"{when:>10} ", (f"{format_short(wait.wait_ns, 'ns'):>7}", "bold"), f"  {who} {how}")
        write_lines(console, [first, Text(f"{'':20}cpu {wait.cpu} ran {_who_ran(wait)}{came}", "dim")])
        for what, stack in (("at", wait.stack), ("woken at", wait.waker_stack)):
            if stack:
                write_lines(console, [Text(f"{'':20}{what} {one_line(stack)}", "dim")])


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


def _stack_lines(report: SchedLatency) -> Iterator[Text | str]:
    yield Text(
        f"{'total':>8} {'waits':>7} {'avg':>7} {'max':>7}           where they waited, and who had woken them", "bold"
    )
    for one in report.stacks:
        average_ns = round(one.total_ns / max(one.count, 1))
        times = " ".join(f"{format_short(time_ns, 'ns'):>7}" for time_ns in (average_ns, one.max_ns))
        kind = "preempted" if one.was_preempted else "woken"
        yield f"{format_short(one.total_ns, 'ns'):>8} {one.count:>7} {times} {kind:9} {one_line(one.stack) or '?'}"
        if one.waker_stack:
            yield Text(f"{'':33}by        {one_line(one.waker_stack)}", "dim")
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
        f"Waiting for a CPU: {report.collection.target}, {format_duration(report.duration_ns)} from {started}, "
        f"{format_short(waits.total_ns, 'ns')} in all"
    )


def _losses(report: SchedLatency) -> list[str]:
    return sentences(report.collection)


def _heading(report: SchedLatency) -> str:
    who = f"{'pid':>7} {'process':{_NAME_WIDTH}}" if report.per_process else f"{'tid':>7} {'thread':{_NAME_WIDTH}}"
    return f"{who} {'waits':>7} {'avg':>7}" + "".join(f" {name:>7}" for name in QUANTILES) + f" {'max':>7}"


def _who(row: Row, report: SchedLatency) -> str:
    number = row.pid if report.per_process else row.tid
    return f"{number or '':>7} {shorten(row.name, _NAME_WIDTH):{_NAME_WIDTH}}"


def _latency_line(row: Row, report: SchedLatency) -> Text:
    times = [row.waits.avg_ns, *row.quantiles_ns, row.waits.max_ns]
    return Text.assemble(
        f"{_who(row, report)} {row.waits.count:>7}", *((f" {format_short(one, 'ns'):>7}", _alarm(one)) for one in times)
    )


def _kind_headings() -> list[Text]:
    blank = f"{'':8}{'':{_NAME_WIDTH}}"
    return [
        Text(f"{blank} {'--- after a sleep ---':>22} {'---- preempted ----':>20}", "bold"),
        Text(
            f"{blank} {'waits':>7} {'avg':>7} {'max':>6} {'waits':>6} {'avg':>6} {'max':>6} {'moves':>6} {'max at':>8}",
            "bold",
        ),
    ]


def _kind_line(row: Row, report: SchedLatency) -> str:
    def cells(waits: Waits, width: int) -> str:
        times = f"{format_short(waits.avg_ns, 'ns'):>6} {format_short(waits.max_ns, 'ns'):>6}"
        return f"{waits.count:>{width}} {times}"

    at = _since(row.max_at_ns, 0)
    return f"{_who(row, report)} {cells(row.woken, 8)} {cells(row.preempted, 6)} {row.migrations:>6} {at:>8}"


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
