"""`pprofpy events`: profile any kernel event by Python stack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pprofpy.cli.console import remark, stdout_console
from pprofpy.cli.kernel_recording import Plan, duration_of, length_options, record_and_show
from pprofpy.cli.options import json_option, rows_option, verbose_option
from pprofpy.cli.record import Length
from pprofpy.cli.saving import Output, keep, output_options
from pprofpy.cli.target_options import Choice, group_options, target_options
from pprofpy.cli.view import print_json, view_of
from pprofpy.collectors.events import EventProfileRecorder, choose
from pprofpy.collectors.kernel.program import require
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.model.recording import Option, Recording
from pprofpy.reports import costs
from pprofpy.reports import top as top_report
from pprofpy.reports.trim import Limits
from pprofpy.target import Watched

EPILOG = """\b
Examples:
  pprofpy events -e page-faults --pid 1234            find who touches memory first
  pprofpy events -e kmem:mm_page_alloc -p 1234        find who makes the kernel allocate pages
  pprofpy events -e write,sendto -p 1234 -d 10        count system calls
  pprofpy events -e syscalls:sys_exit_read --weight ret -p 1234    sum the bytes read
  pprofpy events -e 'block:block_rq_*' -- python app.py            start a program and record until it ends
  pprofpy trace --list                                list all events
"""


@click.command("events", epilog=EPILOG, context_settings={"allow_interspersed_args": False})
@click.option(
    "-e", "--event", "events", multiple=True, required=True, metavar="NAMES",
    help="Count tracepoints, system calls, page-faults, minor-faults, major-faults or context-switches. Separate names "
    "by commas; wildcards match.",
)  # fmt: skip
@click.option("-w", "--weight", metavar="FIELD", default="", help="Sum this field of the tracepoint, too.")
@target_options
@group_options
@length_options
@output_options
@rows_option(top_report.DEFAULT_NODE_COUNT, is_n_free=False)
@json_option
@verbose_option
def command(
    events: tuple[str, ...],
    weight: str,
    duration_ns: int | None,
    window_ns: int,
    subprocesses: bool,
    nodecount: int,
    as_json: bool,
    verbose: bool,
    **others: Any,
) -> None:
    """Profile any kernel event: count it, or sum one of its fields, by Python stack.

    The kernel counts every event with the Python stack of the thread that causes it; nothing is sampled.
    Without a target, pprofpy records the only Python process. Needs root.
    """
    choice = Choice.of(others, children=subprocesses)
    duration_ns = duration_of(duration_ns, choice)
    output = Output.of(others["output"], others["format_name"], force=others["force"])
    require()
    wanted = choose(events, weight)
    shown: dict[str, Option] = {"nodecount": nodecount, "verbose": verbose}
    plan = Plan("events", choice, subprocesses, Length(duration_ns, window_ns), shown, verbose, everybody=False)

    def start(scope: Scope) -> EventProfileRecorder:
        return EventProfileRecorder(wanted, scope)

    paths: list[Path | None] = []

    def show(made: Recording, target: Watched | None) -> None:
        if not len(made.profile):
            remark("no thread of this process caused such an event")
        paths.append(keep(made, target, output))

    def afterwards(made: Recording) -> None:
        if not output.is_stdout:
            present(made, str(paths[0]), as_json=as_json)
            remark(f"saved: {paths[0]}")

    record_and_show(plan, start, show, afterwards=afterwards)


def present(recording: Recording, source: str, *, as_json: bool) -> None:
    """Print a recording. `source`: its file."""
    view = replace(view_of(recording.profile, source), verbose=recording.flag("verbose"))
    limits = Limits(recording.number("nodecount", top_report.DEFAULT_NODE_COUNT))
    table = top_report.build(view.header(), view.graph(), limits, ties_by_name=False)
    if as_json:
        print_json("events", {**top_report.to_json(table), "path": source})
    else:
        costs.render(table, stdout_console())
