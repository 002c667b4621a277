"""`pprofpy sched-latency`: measure how long runnable threads wait for a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from pprofpy.cli.console import remark, say, stdout_console
from pprofpy.cli.kernel_recording import Plan, duration_of, length_options, record_and_show
from pprofpy.cli.options import Duration, json_option, rows_option, verbose_option
from pprofpy.cli.record import Length
from pprofpy.cli.saving import Output, file_name, keep, output_options
from pprofpy.cli.target_options import Choice, group_options, target_options
from pprofpy.cli.view import print_json
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder
from pprofpy.errors import UsageError
from pprofpy.formats import eventlog
from pprofpy.formats.files import growing
from pprofpy.formats.output import writing
from pprofpy.model.latencies import Latencies
from pprofpy.model.latency import LatencyRecord
from pprofpy.model.recording import Option, Recording
from pprofpy.reports import sched_latency as report
from pprofpy.target import Watched
from pprofpy.text import counted

EPILOG = """\b
Examples:
  pprofpy sched-latency                      record all processes for 30 s
  pprofpy sched-latency --pid 1234 -d 10     show the threads of one process
  pprofpy sched-latency -p 1234 --threshold 5ms
                                             list each wait of 5 ms or more, and who had the CPU
  pprofpy sched-latency -p 1234 --stacks     show where threads waited, and who woke them
  pprofpy sched-latency -p 1234 --interval 1 print a table every second
  pprofpy sched-latency --cgroup /system.slice/app.service
                                             show the threads of a service's processes
  pprofpy sched-latency -- python app.py     start a program and record until it ends
"""

_MOST_INTERVALS_KEPT = 10_000
_INTERVAL_ROWS = 5


@dataclass(slots=True)
class _Events:
    """Puts the events of a recording into a file as they come."""

    recorder: SchedRecorder
    path: Path
    writer: eventlog.EventWriter
    count: int = 0

    def take(self) -> None:
        """Save what is new."""
        batch = self.recorder.new_events()
        self.count += len(batch)
        self.writer.add(batch)

    def end(self, record: LatencyRecord) -> None:
        """Save the rest, and how the recording went."""
        self.take()
        self.writer.end(record.duration_ns, record.collection)
        remark(f"events: {self.path} ({self.count} in order)")


@contextmanager
def _events(recorder: SchedRecorder, target: Watched | None, output: Output) -> Iterator[_Events]:
    """Open a file for events beside the recording: what a crash leaves can be read, too."""
    if output.path and not output.is_stdout:
        path = Path(output.path)
        path = path.with_name(path.name.split(".")[0] + eventlog.SUFFIX)
        with writing(path, force=output.force, keep_parts=True) as stream:
            yield _Events(recorder, path, eventlog.EventWriter(stream, recorder.log))
        return
    with growing(file_name("sched-latency", target) + eventlog.SUFFIX) as (stream, path):
        yield _Events(recorder, path, eventlog.EventWriter(stream, recorder.log))


@dataclass(slots=True)
class _Live:
    """Show intervals and long waits while the recording runs.

    Attributes:
        with_intervals: Each window but the last one is an interval that the user asked for.
        is_printing: Print as it comes.
        events: Where the events go.
    """

    with_intervals: bool
    is_printing: bool
    events: _Events | None = None
    interval_count: int = 0

    def poll(self, recorder: SchedRecorder) -> None:
        """Show the long waits that are new; save the events."""
        if self.events:
            self.events.take()
        waits = recorder.new_long_waits()
        if self.is_printing:
            report.render_long_waits(waits, recorder.start_ns, stdout_console())

    def take(self, recorder: SchedRecorder, window: Recording) -> Recording:
        """Show an interval, and note that the window is one."""
        self.poll(recorder)
        if not self.with_intervals or recorder.has_finished or self.interval_count >= _MOST_INTERVALS_KEPT:
            return window
        self.interval_count += 1
        found = Latencies.from_recording(window)
        if self.is_printing:
            _show_interval(found.record)
        as_interval = replace(found, intervals=(found.record,), shown_before=(found.long_wait_count,))
        return as_interval.to_recording(window.shown)


@click.command("sched-latency", epilog=EPILOG, context_settings={"allow_interspersed_args": False})
@target_options
@group_options
@length_options
@click.option("--interval", "interval_ns", type=Duration(), metavar="TIME", help="Print a table every TIME.")
@click.option("--threshold", "threshold_ns", type=Duration(), metavar="TIME", help="List each wait of TIME or longer.")
@click.option(
    "--trace", "with_trace", is_flag=True, help="Save all switches and wake-ups in order, for 'pprofpy timeline'."
)
@click.option("--stacks", "with_stacks", is_flag=True, help="Sum waits by the Python stacks of waiter and waker, too.")
@output_options
@rows_option(report.DEFAULT_ROWS)
@json_option
@verbose_option
def command(
    duration_ns: int | None,
    window_ns: int,
    subprocesses: bool,
    interval_ns: int | None,
    threshold_ns: int | None,
    with_trace: bool,
    with_stacks: bool,
    nodecount: int,
    as_json: bool,
    verbose: bool,
    **others: Any,
) -> None:
    """Measure how long runnable threads wait for a CPU (run-queue latency).

    A wait begins when a thread is woken or preempted; it ends when the thread runs. The kernel measures every wait;
    nothing is sampled. Without a target, pprofpy records all processes. Needs root.
    """
    choice = Choice.of(others, children=subprocesses)
    duration_ns = duration_of(duration_ns, choice)
    if with_stacks and choice == Choice():
        raise UsageError("--stacks needs a process", "name it: --pid PID, --name REGEX, or a COMMAND")
    _check_positive(interval=interval_ns, threshold=threshold_ns)
    output = Output.of(others["output"], others["format_name"], force=others["force"])
    shown: dict[str, Option] = {"nodecount": nodecount, "with_long_waits": bool(threshold_ns)}
    plan = Plan("sched-latency", choice, subprocesses, Length(duration_ns, interval_ns or window_ns), shown, verbose)
    live = _Live(bool(interval_ns), is_printing=not (as_json or output.is_stdout))

    def start(scope: Scope) -> SchedRecorder:
        return SchedRecorder(SchedOptions(scope, threshold_ns or 0, with_trace, with_stacks))

    def begin(recorder: SchedRecorder, target: Watched | None) -> None:
        if with_trace:
            live.events = files.enter_context(_events(recorder, target, output))

    def finish(recorder: SchedRecorder, made: Recording) -> None:
        if recorder.without_python:
            remark(f"no Python stacks: {recorder.without_python}")
        if live.events:
            live.events.end(Latencies.from_recording(made).record)

    def show(made: Recording, target: Watched | None) -> None:
        if not output.is_stdout:
            _show(made, as_json=as_json)
        if path := keep(made, target, output):
            remark(f"saved: {path}")

    with ExitStack() as files:
        record_and_show(
            plan, start, show,
            is_empty=_is_empty, begin=begin, finish=finish, on_poll=live.poll, on_window=live.take,
        )  # fmt: skip


def _is_empty(made: Recording) -> bool:
    return not any(one.woken.count or one.preempted.count for one in Latencies.from_recording(made).record.threads)


def _check_positive(**times: int | None) -> None:
    for name, time_ns in times.items():
        if time_ns is not None and time_ns <= 0:
            raise UsageError(f"--{name} must be above 0", f"write it as --{name} 5ms or --{name} 1s")


def present(recording: Recording, source: str = "", *, as_json: bool) -> None:
    """Print a recording: its intervals and long waits, then its tables."""
    if not as_json:
        _replay(Latencies.from_recording(recording))
    _show(recording, as_json=as_json)


def _replay(found: Latencies) -> None:
    """Print intervals and long waits in the order in which they came."""
    shown = 0
    for interval, before in zip(found.intervals, found.shown_before, strict=True):
        report.render_long_waits(found.long_waits[shown:before], found.record.start_ns, stdout_console())
        shown = before
        _show_interval(interval)
    report.render_long_waits(found.long_waits[shown:], found.record.start_ns, stdout_console())
    if missing := found.long_wait_count - len(found.long_waits):
        verb = "is" if missing == 1 else "are"
        remark(f"{counted(missing, 'further wait')} above the threshold {verb} not in the file")


def _show_interval(window: LatencyRecord) -> None:
    report.render(report.build(window, _INTERVAL_ROWS), stdout_console(), with_histogram=False)
    say()


def _show(recording: Recording, *, as_json: bool) -> None:
    found, nodecount = Latencies.from_recording(recording), recording.number("nodecount", report.DEFAULT_ROWS)
    table = report.build(found.record, nodecount)
    if not as_json:
        report.render(table, stdout_console())
        return
    data = report.to_json(table)
    if found.intervals:
        data["intervals"] = [report.to_json(report.build(one, nodecount)) for one in found.intervals]
    if recording.flag("with_long_waits"):
        data["long_wait_count"] = found.long_wait_count
        data["long_waits"] = [report.long_wait_json(one, found.record.start_ns) for one in found.long_waits]
    print_json("sched-latency", data)
