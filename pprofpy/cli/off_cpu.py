"""`pprofpy off-cpu`: measure where threads block, for how long, and who wakes them."""

from __future__ import annotations

from typing import Any

import click

from pprofpy.cli.console import remark, stdout_console
from pprofpy.cli.kernel_recording import Plan, duration_of, length_options, record_and_show
from pprofpy.cli.options import (
    Duration,
    json_option,
    label_option,
    no_fold_option,
    rows_option,
    tasks_option,
    verbose_option,
)
from pprofpy.cli.record import Length
from pprofpy.cli.saving import Output, keep, output_options
from pprofpy.cli.target_options import Choice, group_options, target_options
from pprofpy.cli.view import print_json
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.off_cpu import OffCpuOptions, OffCpuRecorder
from pprofpy.errors import UsageError
from pprofpy.model.recording import Option, Recording
from pprofpy.model.sleepers import fold_sleepers
from pprofpy.reports import by_label as label_report
from pprofpy.reports import off_cpu as report
from pprofpy.target import Watched

EPILOG = """\b
Examples:
  pprofpy off-cpu --pid 1234              show off-CPU time by thread and by reason
  pprofpy off-cpu -p 1234 --wakers        show the stacks that ended the waits, too
  pprofpy off-cpu -p 1234 --wakers -o chains.svg
                                          draw who blocks whom as a flame graph
  pprofpy off-cpu -p 1234 --min 10ms      ignore waits shorter than 10 ms
  pprofpy off-cpu --container 4f2a91c07b3e
                                          measure all processes of a container
  pprofpy off-cpu -- python app.py        start a program and record until it ends
"""


@click.command("off-cpu", epilog=EPILOG, context_settings={"allow_interspersed_args": False})
@target_options
@group_options
@length_options
@click.option("--min", "min_ns", type=Duration(), metavar="TIME", default=0, help="Ignore waits shorter than TIME.")
@click.option("--max", "max_ns", type=Duration(), metavar="TIME", default=0, help="Ignore waits longer than TIME.")
@click.option("--wakers", is_flag=True, help="Put the waker's stack on top of the stack that waited.")
@click.option("-n", "--native", is_flag=True, help="Show C, C++ and Rust functions, too.")
@click.option("-K", "--kernel-stacks", is_flag=True, help="Show kernel functions on top of Python stacks.")
@tasks_option
@label_option
@output_options
@rows_option(report.DEFAULT_ROWS, is_n_free=False)
@no_fold_option
@json_option
@verbose_option
def command(
    duration_ns: int | None,
    window_ns: int,
    subprocesses: bool,
    min_ns: int,
    max_ns: int,
    wakers: bool,
    native: bool,
    kernel_stacks: bool,
    labels: tuple[str, ...],
    awaiting: bool,
    nodecount: int,
    no_fold: bool,
    as_json: bool,
    verbose: bool,
    **others: Any,
) -> None:
    """Measure where threads block, why, for how long, and who wakes them.

    The kernel measures every off-CPU interval, from the switch that takes a thread's CPU to the one that gives it
    back; nothing is sampled. Each interval is split into sleeping, disk (uninterruptible) and run queue (runnable,
    waiting for a CPU), and counted for the Python stack that blocked. Without a target, pprofpy records the
    kernel stacks of all processes. Needs root.
    """
    choice = Choice.of(others, children=subprocesses)
    duration_ns = duration_of(duration_ns, choice)
    if max_ns and min_ns > max_ns:
        raise UsageError("--min is above --max: no wait can match", "swap them")
    if native and choice == Choice():
        raise UsageError("--native needs a process", "name one: --pid, --name or a COMMAND")
    output = Output.of(others["output"], others["format_name"], force=others["force"])
    wanted = LabelOptions.of(labels, awaiting=awaiting)
    if native:
        wanted.check_native()
    shown: dict[str, Option] = {"nodecount": nodecount, "wakers": wakers, "labels": wanted.shown, "no_fold": no_fold}
    plan = Plan("off-cpu", choice, subprocesses, Length(duration_ns, window_ns), shown, verbose)

    def start(scope: Scope) -> OffCpuRecorder:
        if scope.is_everybody and wanted.shown:
            raise UsageError("--label and --tasks need a process", "name it: --pid, --name or a COMMAND")
        options = OffCpuOptions(scope, min_ns, max_ns, kernel_stacks, wakers, wanted)
        return _recorder(native=native)(options)

    def finish(recorder: OffCpuRecorder, made: Recording) -> None:
        if recorder.without_python:
            remark(f"no Python stacks, only the kernel's: {recorder.without_python}")

    def show(made: Recording, target: Watched | None) -> None:
        if not output.is_stdout:
            present(made, as_json=as_json)
        if path := keep(made, target, output):
            remark(f"saved: {path}")

    record_and_show(plan, start, show, finish=finish)


def _recorder(*, native: bool) -> type[OffCpuRecorder]:
    """Imports no more than that one needs."""
    if not native:
        return OffCpuRecorder
    from pprofpy.collectors.off_cpu_native import NativeOffCpuRecorder

    return NativeOffCpuRecorder


def present(recording: Recording, source: str = "", *, as_json: bool) -> None:
    """Print a recording."""
    fold = not (as_json or recording.flag("no_fold"))
    table = report.build(
        fold_sleepers(recording.profile) if fold else recording.profile,
        recording.number("nodecount", report.DEFAULT_ROWS),
        by_waker=recording.flag("wakers"),
        pools=fold,
    )
    profile, rows = recording.profile, recording.number("nodecount", report.DEFAULT_ROWS)
    by_label = label_report.build(profile, profile.value_index("delay"), rows, recording.text("labels"))
    if as_json:
        print_json("off-cpu", report.to_json(table) | label_report.to_json(by_label))
    else:
        report.render(table, stdout_console())
        label_report.render(by_label, stdout_console())
