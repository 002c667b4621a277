"""`pprofpy timeline`: show what each thread did over time, as a table or as a trace for Perfetto."""

from __future__ import annotations

import io
from pathlib import Path

import click

from pprofpy.cli import completion, confinement
from pprofpy.cli.console import remark, stdout_console, write_data
from pprofpy.cli.options import json_option, rows_option
from pprofpy.cli.view import print_json
from pprofpy.errors import ProfileFormatError
from pprofpy.events.scheduling import calls_by_thread, stacks_at_switches, to_trace
from pprofpy.formats import chrome, eventlog
from pprofpy.formats.files import STDIO, read_input, save
from pprofpy.formats.output import check_free
from pprofpy.model import timeline as timelines
from pprofpy.model.timeline import Timeline
from pprofpy.reports import timeline as report

EPILOG = """\b
Examples:
  pprofpy sched-latency -p 1234 --trace        record switches and wake-ups, then:
  pprofpy timeline sched-latency-….trace -o app.json
                                               write app.json for https://ui.perfetto.dev
  pprofpy trace -p 1234 -e 'sched:sched_switch,sched:sched_waking,*' -o app.trace
  pprofpy timeline app.trace                   show the system calls that block, too
"""


@click.command("timeline", epilog=EPILOG)
@click.argument("path", metavar="FILE", shell_complete=completion.recordings)
@click.option(
    "-o", "--output", metavar="FILE", default="", help="Write Chrome trace JSON to FILE ('-': standard output)."
)
@click.option("--force", is_flag=True, help="Replace a file that pprofpy did not write.")
@rows_option(report.DEFAULT_ROWS)
@json_option
def command(path: str, output: str, force: bool, nodecount: int, as_json: bool) -> None:
    """Show what each thread did over time: running, runnable or blocked, and why.

    Reads what 'pprofpy sched-latency --trace' or 'pprofpy trace' (with the scheduler's events) saved.
    """
    if output and output != STDIO:
        check_free(Path(output), force=force)
    confinement.before_reading(output)
    timeline = _read(path)
    if not output:
        table = report.build(timeline, nodecount)
        if as_json:
            print_json("timeline", report.to_json(table))
        else:
            report.render(table, stdout_console())
        return
    data = chrome.write(timeline)
    if output == STDIO:
        write_data(data)
        return
    save(data, Path(output), force=force)
    remark(f"saved: {output}")
    remark("  view:  open it in https://ui.perfetto.dev or chrome://tracing")


def _read(path: str) -> Timeline:
    data = read_input(path)
    try:
        reader = eventlog.EventReader(io.BytesIO(data))
        batches = list(reader.batches())
        trace = to_trace(reader.log, batches, reader.duration_ns, reader.collection)
        return timelines.build(trace, calls_by_thread(reader.log, batches), stacks_at_switches(reader.log, batches))
    except ProfileFormatError as error:
        raise ProfileFormatError(f"{path}: {error.message}", error.hint) from error
