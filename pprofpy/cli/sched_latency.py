"""`pprofpy sched-latency`: how long threads that could run waited for a CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import click

from pprofpy.cli.console import remark, say, stdout_console
from pprofpy.cli.kernel_recording import check_began, duration_of, length_options, recording, run, wait_for_command
from pprofpy.cli.options import Duration, json_option, rows_option, verbose_option
from pprofpy.cli.recording import Output, keep, output_options
from pprofpy.cli.target_options import Choice, target_options
from pprofpy.cli.view import print_json
from pprofpy.collectors.sched import SchedOptions, SchedRecorder
from pprofpy.errors import UsageError
from pprofpy.formats import tracefile
from pprofpy.formats.files import save, save_recording
from pprofpy.latency import LatencyRecord, LongWait
from pprofpy.model.latencies import Latencies
from pprofpy.model.recording import Recording
from pprofpy.reports import sched_latency as report
from pprofpy.target import Target
from pprofpy.target.launch import interruptible
from pprofpy.trace import Trace

EPILOG = """\b
Examples:
  pprofpy sched-latency                      all processes, 30 seconds
  pprofpy sched-latency --pid 1234 -d 10     the threads of one process
  pprofpy sched-latency -p 1234 --threshold 5ms
                                             each wait of 5 ms and more: who had the CPU
  pprofpy sched-latency -p 1234 --stacks     where the waiting threads were, and who had woken them
  pprofpy sched-latency -p 1234 --interval 1 a table every second
  pprofpy sched-latency -- python app.py     start a program and record until it ends
"""

_MOST_LONG_WAITS_KEPT = 10_000
_MOST_INTERVALS_KEPT = 10_000
_INTERVAL_ROWS = 5


@dataclass(slots=True)
class _Live:
    """What is shown while the recording goes on, and kept for --json.

    Attributes:
        recorder: The recording.
        interval_ns: A table so often; 0 for none.
        is_printing: Print as it comes; otherwise only keep it.
    """

    recorder: SchedRecorder
    interval_ns: int
    is_printing: bool
    intervals: list[LatencyRecord] = field(default_factory=list)
    long_waits: list[LongWait] = field(default_factory=list)
    long_wait_count: int = 0
    shown_before: list[int] = field(default_factory=list)
    next_ns: int = 0

    def tick(self) -> None:
        """Fetch and show what is new."""
        self.take(self.recorder.poll())
        if not self.interval_ns:
            return
        self.next_ns = self.next_ns or self.recorder.start_ns + self.interval_ns
        if self.recorder.now_ns() >= self.next_ns:
            self.next_ns += self.interval_ns
            window = self.recorder.window()
            if self.is_printing:
                _show_interval(window)
            if len(self.intervals) < _MOST_INTERVALS_KEPT:
                self.intervals.append(window)
                self.shown_before.append(self.long_wait_count)

    def take(self, waits: list[LongWait]) -> None:
        """Show or keep long waits."""
        self.long_wait_count += len(waits)
        if self.is_printing:
            report.render_long_waits(waits, self.recorder.start_ns, stdout_console())
        self.long_waits += waits[: max(_MOST_LONG_WAITS_KEPT - len(self.long_waits), 0)]

    def latencies(self, record: LatencyRecord) -> Latencies:
        """All that was found; `record`: the whole of it."""
        return Latencies(
            record, tuple(self.intervals), tuple(self.long_waits), self.long_wait_count, tuple(self.shown_before)
        )


@click.command("sched-latency", epilog=EPILOG, context_settings={"allow_interspersed_args": False})
@target_options
@length_options
@click.option("--interval", "interval_ns", type=Duration(), metavar="TIME", help="Print a table so often.")
@click.option("--threshold", "threshold_ns", type=Duration(), metavar="TIME", help="List each wait of this length on.")
@click.option("--trace", "with_trace", is_flag=True, help="Save all switches and wake-ups in order, too.")
@click.option("--stacks", "with_stacks", is_flag=True, help="Also by Python stack: where they waited, who woke them.")
@output_options
@rows_option(report.DEFAULT_ROWS, "-n")
@json_option
@verbose_option
def command(
    duration_ns: int | None,
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
    """How long threads that could run waited for a CPU (run-queue latency), measured in the kernel.

    A wait begins when a thread is woken, or loses its CPU although it could run on; it ends when the thread
    runs. Every switch is seen; nothing is sampled. Without --pid, --name or a COMMAND: all processes. Needs root.
    """
    choice = Choice(others["pid"], others["name"], others["command"])
    duration_ns = duration_of(duration_ns, choice)
    if with_stacks and choice == Choice():
        raise UsageError("--stacks needs a process", "name it: --pid PID, --name REGEX, or a COMMAND")
    _check_positive(interval=interval_ns, threshold=threshold_ns)
    output = Output.of(others["output"], others["format_name"], force=others["force"])
    with interruptible() as interruption:

        def start(scope: Any) -> SchedRecorder:
            return SchedRecorder(SchedOptions(scope, threshold_ns or 0, with_trace, with_stacks))

        with recording(choice, subprocesses, interruption, start) as (recorder, target):
            live = _Live(recorder, interval_ns or 0, is_printing=not (as_json or output.is_stdout))
            run(recorder, target, duration_ns, interruption, live.tick)
            record = recorder.stop()
            if verbose:
                remark(f"memory: {recorder.memory()}")
            if recorder.without_python:
                remark(f"no Python stacks: {recorder.without_python}")
            live.take(recorder.poll())
            trace = recorder.trace(record) if with_trace else None
        try:
            is_empty = not any(one.woken.count or one.preempted.count for one in record.threads)
            check_began(is_empty, target, interruption)
            shown = {"nodecount": nodecount, "with_long_waits": bool(threshold_ns)}
            found = live.latencies(record).to_recording(shown)
            if not output.is_stdout:
                _show(found, as_json=as_json)
            _keep(found, trace, target, output, force=others["force"])
        finally:
            wait_for_command(interruption.child)


def _check_positive(**times: int | None) -> None:
    for name, time_ns in times.items():
        if time_ns is not None and time_ns <= 0:
            raise UsageError(f"--{name} must be longer than nothing", f"write it as --{name} 5ms or --{name} 1s")


def present(recording: Recording, source: str = "", *, as_json: bool) -> None:
    """Print a recording: what was shown while it was made, and its tables."""
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
        remark(f"{missing} further waits above the threshold are not in the file")


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


def _keep(found: Recording, trace: Trace | None, target: Target | None, output: Output, *, force: bool) -> None:
    path = keep(found, target, output)
    if path:
        remark(f"saved: {path}")
    if trace is None:
        return
    data = tracefile.write(trace)
    stem = path.name.split(".")[0] if path else "sched-latency"
    if path and output.path:
        events = path.with_name(stem + tracefile.SUFFIX)
        save(data, events, force=force)
    else:
        events = save_recording(data, stem + tracefile.SUFFIX)
    remark(f"events: {events} ({len(trace)} in order)")
