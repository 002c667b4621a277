"""`pprofpy trace`: print system calls and kernel events as they happen."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from pprofpy.cli import confinement
from pprofpy.cli.console import remark, say
from pprofpy.cli.kernel_recording import everybody, recording, wait_for_command
from pprofpy.cli.options import SUBPROCESSES, Duration, verbose_option
from pprofpy.cli.record import print_costs
from pprofpy.cli.target_options import Choice, group_options, target_options
from pprofpy.cli.trace_view import EventView
from pprofpy.errors import TargetError, UsageError
from pprofpy.events.log import Batch, EventLog, EventSummary, call_name, summarize
from pprofpy.formats import eventlog
from pprofpy.formats.files import STDIO, open_input
from pprofpy.formats.output import check_free, writing
from pprofpy.reports.losses import lines
from pprofpy.session import Session
from pprofpy.target import Target, Watched
from pprofpy.target.launch import Interruption, interruptible
from pprofpy.units import NS_PER_S, format_duration, parse_duration_ns

EPILOG = """\b
Examples:
  pprofpy trace --pid 1234                     print system calls as they return
  pprofpy trace -p 1234 -e openat,read,write   print only these calls
  pprofpy trace -p 1234 --duration 10          print only calls of 10 ms or more
  pprofpy trace -p 1234 -e 'sched:*' -e futex  print tracepoints, too
  pprofpy trace -p 1234 -s -d 10               summarize 10 s by thread
  pprofpy trace --container 4f2a91c07b3e -s    summarize all processes of a container
  pprofpy trace -p 1234 -o app.trace           save events to a file
  pprofpy trace --input app.trace -e 'open*'   print saved events
"""

_PORTION = 20_000
"""Events formatted at a time: the kernel's buffers are emptied in between."""


_SUSPICIOUS_NS = 10 * NS_PER_S
"""Who writes `--duration 30s` means how long to record, as with the other commands; hardly a call takes that long."""


def slower_than_ns(value: str) -> int:
    """A duration as `perf trace --duration` takes it: a bare number is milliseconds. Returns nanoseconds.

    Raises:
        UsageError: It is no duration, or looks like the recording's.
    """
    cleaned = value.strip()
    if re.fullmatch(r"\d+(\.\d*)?|\.\d+", cleaned):
        return parse_duration_ns(f"{cleaned}ms")
    least_ns = parse_duration_ns(cleaned)
    if least_ns >= _SUSPICIOUS_NS:
        raise UsageError(
            f"--duration {cleaned} shows only system calls that take {cleaned} or longer",
            f"to record for {cleaned}: -d {cleaned}; if such calls are meant: --duration {least_ns // 1_000_000}",
        )
    return least_ns


@click.command("trace", epilog=EPILOG, context_settings={"allow_interspersed_args": False})
@target_options
@group_options
@click.option(
    "-e",
    "--event",
    "events",
    multiple=True,
    metavar="NAMES",
    help="Trace these system calls and tracepoints (commas, wildcards); '!' excludes. Default: all calls.",
)
@click.option("--no-syscalls", is_flag=True, help="Trace no system calls, whatever -e matches.")
@click.option(
    "--duration",
    "slower_ns",
    type=slower_than_ns,
    default="0",
    metavar="MS",
    help="Show only system calls of at least MS milliseconds (or 500us, 1s). To limit the recording, use -d.",
)
@click.option(
    "-d",
    "--seconds",
    "length_ns",
    type=Duration(),
    metavar="TIME",
    help="Record for TIME (30, 30s, 2m; not --duration). Default: until Ctrl-C or until the process ends.",
)
@click.option("-s", "--summary", is_flag=True, help="Print only a summary by thread.")
@click.option("-S", "--with-summary", is_flag=True, help="Print events, then a summary by thread.")
@click.option(
    "--max-events", type=click.IntRange(min=0), default=0, metavar="N", help="Stop after N events (0: never)."
)
@click.option("--tid", type=click.IntRange(min=1), metavar="TID", help="Trace only this thread.")
@click.option("--subprocesses", "--follow", is_flag=True, help=SUBPROCESSES)
@click.option("--stacks", is_flag=True, help="Show the Python stack that caused each event.")
@click.option("-o", "--output", metavar="FILE", default="", help="Save events to FILE, for --input.")
@click.option("--force", is_flag=True, help="Replace a file that pprofpy did not write.")
@click.option("-i", "--input", "input_path", metavar="FILE", default="", help="Show the events saved in FILE.")
@click.option("--list", "list_events", is_flag=True, help="List the events that -e can name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per line.")
@verbose_option
def command(
    events: tuple[str, ...],
    no_syscalls: bool,
    slower_ns: int,
    length_ns: int | None,
    summary: bool,
    with_summary: bool,
    max_events: int,
    tid: int | None,
    subprocesses: bool,
    stacks: bool,
    output: str,
    force: bool,
    input_path: str,
    list_events: bool,
    as_json: bool,
    verbose: bool,
    **others: Any,
) -> None:
    """Print system calls and kernel events as they happen, one per line.

    A system call is printed when it returns, with the time at which it began. Without a target,
    pprofpy traces all processes but itself. Needs root.
    """
    choice = Choice.of(others, children=subprocesses)
    view = EventView(not summary, summary or with_summary, as_json, max_events)
    wanted = _Wanted(events, not no_syscalls, slower_ns, tid or 0)
    wanted.check()
    if list_events:
        _list(wanted)
    elif input_path:
        if choice != Choice() or output:
            raise UsageError("--input shows saved events", "leave out the process and -o")
        confinement.before_reading()
        _replay(input_path, wanted, view)
    else:
        _record(choice, wanted, view, _Run(length_ns, subprocesses, stacks, output, force, verbose))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which events the user asked for."""

    names: tuple[str, ...]
    with_syscalls: bool
    slower_than_ns: int
    tid: int

    def check(self) -> None:
        """Raise UsageError for a choice that matches nothing."""
        if not self.with_syscalls and not self.names:
            raise UsageError("--no-syscalls leaves nothing to trace", "name events: -e 'sched:*'")
        if self.slower_than_ns < 0:
            raise UsageError("--duration cannot be negative", "write it as --duration 10 (milliseconds)")


@dataclass(frozen=True, slots=True)
class _Run:
    """How to record events."""

    length_ns: int | None
    subprocesses: bool
    stacks: bool
    output: str
    force: bool
    verbose: bool


# -- recording -------------------------------------------------------------------------------------------------------


def _record(choice: Choice, wanted: _Wanted, view: EventView, how: _Run) -> None:
    from pprofpy.collectors.kernel.program import require
    from pprofpy.collectors.kernel.tracepoints import select
    from pprofpy.collectors.trace import EventRecorder, TraceOptions

    if how.stacks and (choice == Choice() or not (view.lines or how.output)):
        raise UsageError(
            "--stacks shows the stacks of one process, event by event", "name it with --pid PID; leave out --summary"
        )
    if how.output == STDIO and sys.stdout.isatty():
        raise UsageError("recorded events are not for reading on a terminal", "leave out -o, or pipe them on")
    if how.output and how.output != STDIO:
        check_free(Path(how.output), force=how.force)
    require()
    selection = select(wanted.names, with_syscalls=wanted.with_syscalls)
    keeps_lines = view.lines or bool(how.output)

    def start(scope: Any) -> EventRecorder:
        return EventRecorder(
            TraceOptions(
                selection, scope, wanted.tid, wanted.slower_than_ns, keeps_lines, view.with_summary, stacks=how.stacks
            )
        )

    with interruptible() as interruption:
        with (
            recording(choice, how.subprocesses, interruption, start) as (recorder, target),
            _saved(how, recorder.log) as keep,
        ):
            view.begin(recorder.log)
            if target and wanted.tid:
                _check_thread(target, wanted.tid)
            length = f" for {format_duration(how.length_ns)}" if how.length_ns else ""
            remark(f"recording {target or everybody()}{length}; Ctrl-C ends it")
            stream = _Stream(recorder, view, target, keep, interruption)
            session = Session([recorder], stream, target=target, duration_ns=how.length_ns, on_poll=stream.take)
            for text in (*session.remarks, *recorder.remarks):
                remark(text)
            list(session.windows())
            stream.end()
            if how.verbose:
                print_costs(recorder)
        wait_for_command(interruption.child)


@dataclass(slots=True)
class _Stream:
    """Show and save events as they come; stop the session when enough are shown.

    Attributes:
        recorder: Where the events come from (an EventRecorder).
        view: What is shown of them.
        target: Whose they are; None for all processes.
        keep: Puts them into a file; None without one.
        interruption: The user's say.
    """

    recorder: Any
    view: EventView
    target: Watched | None
    keep: eventlog.EventWriter | None
    interruption: Interruption

    def wait(self, timeout: float) -> bool:
        """As `Interruption.wait`; at once if enough was shown."""
        return self.view.is_full or self.interruption.wait(timeout)

    def take(self, elapsed_ns: int = 0) -> None:
        """Show and save what is new."""
        if not self.view.is_full:
            for batch in self.recorder.read():
                self._take(batch)

    def end(self) -> None:
        """Show and save the rest, and what was lost."""
        self.take()
        collection = self.recorder.collected()
        if self.target:
            collection = replace(collection, target=str(self.target))
        if self.keep:
            self.keep.end(self.recorder.duration_ns, collection)
        if self.view.with_summary:
            self.view.sum_up(self.recorder.summary())
        if self.view.lines and not (self.view.shown or self.keep):
            remark("no event: nothing that is traced has happened")
        for note in lines(collection):
            remark(note)
        if collection.dropped:
            remark("  to lose fewer: trace fewer (-e), save them (-o) or only count them (-s)")

    def _take(self, batch: Batch) -> None:
        if self.keep:
            self.keep.add(batch)
            return
        for portion in batch.sliced(_PORTION):
            if not self.view.is_full:
                self.view.show(portion)


@contextmanager
def _saved(how: _Run, log: EventLog) -> Iterator[eventlog.EventWriter | None]:
    """Open a file for events, under a temporary name until it is complete; what a crash leaves can be read, too."""
    if not how.output:
        yield None
        return
    if how.output == STDIO:
        yield eventlog.EventWriter(sys.stdout.buffer, log)
        return
    with writing(Path(how.output), force=how.force, keep_parts=True) as stream:
        yield eventlog.EventWriter(stream, log)
    remark(f"saved: {how.output}")
    remark(f"  view:  pprofpy trace --input {shlex.quote(how.output)}")


def _check_thread(target: Watched, tid: int) -> None:
    threads = {thread.tid for one in target.members for thread in one.threads()}
    if tid not in threads:
        known = ", ".join(map(str, sorted(threads)[:10]))
        who = f"process {target.pid}" if isinstance(target, Target) else str(target)
        raise TargetError(f"{who} has no thread {tid}", f"its threads: {known}")


# -- reading ---------------------------------------------------------------------------------------------------------


def _replay(path: str, wanted: _Wanted, view: EventView) -> None:
    with open_input(path) as stream:
        reader = eventlog.EventReader(stream)
        view.begin(reader.log)
        view.is_wanted = _filter(reader.log, wanted)
        kept = []
        for batch in reader.batches():
            if view.with_summary:
                kept.append(view.is_wanted(batch))
            if view.lines and not view.is_full:
                view.show(batch)
        if view.with_summary:
            view.sum_up(EventSummary(tuple(summarize(reader.log, kept)), reader.duration_ns, reader.collection))
        for note in lines(reader.collection):
            remark(note)


def _filter(log: EventLog, wanted: _Wanted) -> Callable[[Batch], Batch]:
    """Return a filter that keeps the wanted events of a batch."""
    import numpy as np

    from pprofpy.events.selection import matching

    tids = frozenset({wanted.tid}) if wanted.tid else None
    names = matching(wanted.names, [one.name for one in log.tracepoints], with_syscalls=wanted.with_syscalls)
    places = [place for place, one in enumerate(log.tracepoints) if one.name in names]

    def keep(batch: Batch) -> Batch:
        batch = batch.where(tids=tids, slower_than_ns=wanted.slower_than_ns)
        if not wanted.names and wanted.with_syscalls:
            return batch

        def is_named(head: Any) -> Any:
            numbers = np.unique(head["event"]).tolist()
            known = {number: call_name(number, 0, log.machine) in names for number in numbers}
            return np.array([known[number] for number in head["event"].tolist()], np.bool_)

        return Batch(
            batch.records[np.isin(batch.records["head"]["event"], places)],
            batch.calls[is_named(batch.calls["head"])],
            batch.calls_with_strings[is_named(batch.calls_with_strings["call"]["head"])],
            batch.fd_paths,
            batch.symbols,
            batch.stacks,
        )

    return keep


def _list(wanted: _Wanted) -> None:
    from pprofpy.collectors.kernel.tracepoints import listing

    for name in listing(wanted.names, with_syscalls=wanted.with_syscalls):
        say(name)
