"""`pprofpy cpu`: record where a running process spends CPU time, save it, show the top functions."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any

import click

from pprofpy.cli.console import remark, say, stdout_console
from pprofpy.cli.kernel_recording import check_began
from pprofpy.cli.options import (
    duration_option,
    json_option,
    label_option,
    no_fold_option,
    rate_option,
    rows_option,
    subprocesses_option,
    tasks_option,
    verbose_option,
    window_option,
)
from pprofpy.cli.record import Length, named, print_costs, record, spooled
from pprofpy.cli.saving import Output, keep, next_steps, output_options, progress_bar
from pprofpy.cli.target_options import Choice, chosen, group_options, target_options
from pprofpy.cli.view import print_json, view_of
from pprofpy.collectors.cpu import ENGINES, CpuEngines
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.errors import NotPossibleError
from pprofpy.formats.spool import Spool
from pprofpy.model.recording import Option, Recording
from pprofpy.model.sleepers import fold_sleepers
from pprofpy.reports import by_label as label_report
from pprofpy.reports import costs
from pprofpy.reports import threads as threads_report
from pprofpy.reports import top as top_report
from pprofpy.reports.trim import Limits
from pprofpy.session import FOREVER
from pprofpy.target import Watched
from pprofpy.target.children import ChildrenAtWork
from pprofpy.target.launch import Interruption, Launched, interruptible, status_in_words
from pprofpy.units import format_duration

EPILOG = """\b
Examples:
  pprofpy cpu --pid 1234                     record for 30 s at 100 Hz
  pprofpy cpu --name 'gunicorn.*api' -d 10   find the process by its command line
  pprofpy cpu --container 4f2a91c07b3e       record all Python processes of a container
  pprofpy cpu -d 2m -o cpu.svg               record the only Python process, draw a flame graph
  pprofpy cpu -- python app.py --port 80     start a program and record until it ends
  pprofpy cpu -p 1234 --label route=app.ctx:route_var -o api.pb.gz
                                             label samples by the value of a ContextVar;
                                             then: pprofpy top api.pb.gz --tagfocus route=/checkout
  sudo pprofpy cpu --pid 1234                record another user's process
"""

_ATTACHED_DURATION_NS = CpuOptions().duration_ns


@click.command("cpu", epilog=EPILOG, context_settings={"allow_interspersed_args": False})
@target_options
@group_options
@duration_option
@window_option
@rate_option(CpuOptions().rate_hz, int, "Take HZ samples per second.")
@click.option("-t", "--threads", is_flag=True, help="Show the cost of each thread, too.")
@click.option("-n", "--native", is_flag=True, help="Show C, C++ and Rust functions, too.")
@click.option("-g", "--gil", is_flag=True, help="Count only threads that hold the interpreter lock.")
@click.option("-i", "--idle", is_flag=True, help="Count waiting threads, too: record wall-clock time.")
@subprocesses_option
@click.option("-K", "--kernel-stacks", is_flag=True, help="Show kernel functions, too.")
@tasks_option
@label_option
@click.option("--nonblocking", is_flag=True, help="Never pause the process; some stacks may be inconsistent (py-spy).")
@click.option(
    "--engine", type=click.Choice(["auto", *ENGINES]), default="auto", show_default=True,
    help="Choose who samples: bpf inside the kernel (needs privileges), py-spy from outside.",
)  # fmt: skip
@verbose_option
@output_options
@rows_option(top_report.DEFAULT_NODE_COUNT, is_n_free=False)
@no_fold_option
@json_option
@click.option("--propagate-status", is_flag=True, help="Exit with the COMMAND's exit status.")
def command(
    duration_ns: int | None,
    engine: str,
    threads: bool,
    nodecount: int,
    no_fold: bool,
    as_json: bool,
    propagate_status: bool,
    verbose: bool,
    **others: Any,
) -> int:
    """Record where a running Python process spends CPU time.

    The process is neither changed nor restarted. Ctrl-C ends the recording early and keeps it.
    Without a target, pprofpy records the only Python process, or asks which.
    """
    choice = Choice.of(others, children=others["subprocesses"])
    choice.check()
    others["subprocesses"] |= choice.is_group
    output = Output.of(others.pop("output"), others.pop("format_name"), force=others.pop("force"))
    if duration_ns is None:
        duration_ns = FOREVER if choice.command else _ATTACHED_DURATION_NS
    length = Length(duration_ns, others.pop("window_ns"))
    labels = LabelOptions.of(others.pop("labels"), awaiting=others.pop("awaiting"))
    options = CpuOptions(duration_ns=duration_ns, labels=labels, **others)
    shown: dict[str, Option] = {
        "nodecount": nodecount, "threads": threads, "labels": labels.shown, "no_fold": no_fold, "verbose": verbose,
    }  # fmt: skip
    status = 0
    with interruptible() as interruption:
        try:
            with CpuEngines(engine, options, remark) as engines, ExitStack() as spool:
                if choice.command:
                    engines.prepare()  # so that hardly anything of the command is missed
                with chosen(choice, interruption) as target:
                    windows = spool.enter_context(spooled("cpu", target))
                    made = _record(engines, target, options, length, windows, shown, interruption, verbose=verbose)
                path = keep(made, target, output)
            if not output.is_stdout:
                present(made, str(path), as_json=as_json)
            next_steps(path, is_empty=not len(made.profile))
        finally:
            status = _wait_for(interruption.child)
    return status if propagate_status else 0


def _record(
    engines: CpuEngines,
    target: Watched,
    options: CpuOptions,
    length: Length,
    windows: Spool,
    shown: Mapping[str, Option],
    interruption: Interruption,
    *,
    verbose: bool,
) -> Recording:
    """Record with the first engine that works; if one fails after its start, try the next."""
    how_long = f"for {format_duration(options.duration_ns)}" if options.duration_ns else "until it ends"
    remark(f"recording {target!s} {how_long} at {options.rate_hz} Hz; Ctrl-C ends early")
    made: Recording | None = None
    family = None if options.subprocesses else ChildrenAtWork(target.members[0])
    name = partial(named, target=target)
    with progress_bar("recording", options.duration_ns) as progress:
        while made is None:
            with closing(engines.start(target, interruption)) as recorder:
                try:
                    made = record([recorder], windows, shown, length, interruption, target, progress, name)
                except NotPossibleError as error:
                    engines.refuse(error)
                    windows.clear()
                if verbose:
                    print_costs(recorder)
    collection = made.profile.collection
    made.profile.collection = replace(collection, notes=(*collection.notes, *engines.notes))
    check_began(not len(made.profile), target, interruption)
    if family and (told := family.remark(made.profile.duration_ns)):
        remark(told)
    if not len(made.profile):
        remark("no sample: the process waited the whole time; -i/--idle counts waiting, too")
    return made


def present(recording: Recording, source: str, *, as_json: bool) -> None:
    """Print the top table of a recording, and the thread table if it was asked for. `source`: its file."""
    fold = not (as_json or recording.flag("no_fold"))
    profile = fold_sleepers(recording.profile) if fold else recording.profile
    view = replace(view_of(profile, source), verbose=recording.flag("verbose"))
    limits = Limits(recording.number("nodecount", top_report.DEFAULT_NODE_COUNT))
    by_thread = threads_report.build(profile, view.value_index) if recording.flag("threads") else None
    by_label = label_report.build(profile, view.value_index, limits.node_count, recording.text("labels"))
    table = top_report.build(view.header(), view.graph(), limits, ties_by_name=False)
    if as_json:
        data = {**top_report.to_json(table), "path": source}
        data |= {"threads": threads_report.to_json(by_thread)} if by_thread else {}
        print_json("cpu", data | label_report.to_json(by_label))
        return
    costs.render(table, stdout_console())
    if by_thread:
        say()
        threads_report.render(by_thread, stdout_console())
    label_report.render(by_label, stdout_console())


def _wait_for(child: Launched | None) -> int:
    """Wait for the COMMAND, report a failure, and return its exit status; 0 without a COMMAND."""
    if child is None:
        return 0
    if child.is_running():
        remark(f"recording done; waiting for the command to end (pid {child.pid})")
    status = child.wait()
    if status:
        remark(
            f"the command ended with status {status}"
            if status < 128
            else f"the command was {status_in_words(128 - status)}"
        )
    return status
