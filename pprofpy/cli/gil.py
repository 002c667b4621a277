"""`pprofpy gil`: measure who waits for the interpreter lock, for how long, and who holds it meanwhile."""

from __future__ import annotations

from typing import Any

import click

from pprofpy.cli.console import remark, stdout_console
from pprofpy.cli.kernel_recording import Plan, duration_of, length_options, record_and_show
from pprofpy.cli.options import (
    Duration,
    json_option,
    label_option,
    rate_option,
    rows_option,
    tasks_option,
    verbose_option,
)
from pprofpy.cli.record import Length
from pprofpy.cli.saving import Output, keep, output_options
from pprofpy.cli.target_options import Choice, group_options, target_options
from pprofpy.cli.view import print_json
from pprofpy.collectors.gil import DEFAULT_RATE_HZ, GilOptions, GilRecorder
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.kernel.program import require
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.model.gil import GilRecord
from pprofpy.model.recording import Option, Recording
from pprofpy.reports import by_label as label_report
from pprofpy.reports import gil as report
from pprofpy.target import Watched

EPILOG = """\b
Examples:
  pprofpy gil --pid 1234                    show waits by thread and line, and who blocks whom
  pprofpy gil -p 1234 -d 10 --interval 1s   show how busy the lock is, second by second
  pprofpy gil -s -p 1234                    record the locks of child processes, too
  pprofpy gil --cgroup /system.slice/app.service
                                            record the locks of a service's processes
  pprofpy gil -- python app.py              start a program and record until it ends
  pprofpy flamegraph -o gil.svg             draw the waiters, and on top of them the holders
"""

_FASTEST_HZ = 20_000


@click.command("gil", epilog=EPILOG, context_settings={"allow_interspersed_args": False})
@target_options
@group_options
@length_options
@rate_option(DEFAULT_RATE_HZ, click.IntRange(1, _FASTEST_HZ), "Sample running threads HZ times per second.")
@click.option(
    "--interval",
    "interval_ns",
    type=Duration(),
    metavar="TIME",
    default=0,
    help="Show how busy the lock is in each TIME.",
)
@tasks_option
@label_option
@output_options
@rows_option(report.DEFAULT_ROWS)
@json_option
@verbose_option
def command(
    duration_ns: int | None,
    window_ns: int,
    subprocesses: bool,
    rate_hz: int,
    interval_ns: int,
    awaiting: bool,
    labels: tuple[str, ...],
    nodecount: int,
    as_json: bool,
    verbose: bool,
    **others: Any,
) -> None:
    """Measure who waits for the interpreter lock (GIL), for how long, and who holds it meanwhile.

    The kernel measures every wait, from the moment that a thread goes to sleep for the lock until it has the lock.
    It records the holder whenever the holder leaves its CPU, and samples it at RATE while it runs.
    Without a target, pprofpy records the only Python process. Needs root.
    """
    choice = Choice.of(others, children=subprocesses)
    duration_ns = duration_of(duration_ns, choice)
    output = Output.of(others["output"], others["format_name"], force=others["force"])
    wanted = LabelOptions.of(labels, awaiting=awaiting)
    require()
    shown: dict[str, Option] = {"nodecount": nodecount, "by_interval": bool(interval_ns), "labels": wanted.shown}
    plan = Plan("gil", choice, subprocesses, Length(duration_ns, window_ns), shown, verbose, everybody=False)

    def start(scope: Scope) -> GilRecorder:
        return GilRecorder(GilOptions(scope, rate_hz, interval_ns, wanted))

    def show(made: Recording, target: Watched | None) -> None:
        if not output.is_stdout:
            present(made, as_json=as_json)
        if path := keep(made, target, output):
            remark(f"saved: {path}")

    record_and_show(plan, start, show, is_empty=lambda made: not len(made.tables["threads"]))


def present(recording: Recording, source: str = "", *, as_json: bool) -> None:
    """Print a recording."""
    record = GilRecord.from_recording(recording)
    table = report.build(record, recording.number("nodecount", report.DEFAULT_ROWS))
    profile, rows = recording.profile, recording.number("nodecount", report.DEFAULT_ROWS)
    by_label = label_report.build(profile, profile.value_index("delay"), rows, recording.text("labels"))
    if as_json:
        print_json("gil", report.to_json(table) | label_report.to_json(by_label))
    else:
        report.render(table, stdout_console(), by_interval=recording.flag("by_interval"))
        label_report.render(by_label, stdout_console())
