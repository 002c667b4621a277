"""`pprofpy heap`: record which code allocates a running process's memory, and how much stays."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from pprofpy.cli.console import remark, say, stdout_console
from pprofpy.cli.kernel_recording import DEFAULT_DURATION_NS, wait_for_command
from pprofpy.cli.options import (
    Size,
    duration_option,
    json_option,
    rows_option,
    subprocesses_option,
    verbose_option,
    window_option,
)
from pprofpy.cli.record import Length, print_costs, record, spooled
from pprofpy.cli.saving import Output, keep, next_steps, output_options, progress_bar
from pprofpy.cli.target_options import Choice, chosen, target_options
from pprofpy.cli.view import print_json, view_of
from pprofpy.collectors import heap
from pprofpy.collectors.heap import HeapOptions, HeapRecorder
from pprofpy.collectors.heap_family import HeapFamily, check_for_several
from pprofpy.formats.spool import Spool
from pprofpy.model.graph import Granularity, total_of
from pprofpy.model.heap import HeapRecording
from pprofpy.model.profile import Profile
from pprofpy.model.recording import Option, Recording
from pprofpy.reports import costs, growth
from pprofpy.reports import heap as heap_report
from pprofpy.reports import top as top_report
from pprofpy.reports.trim import Limits
from pprofpy.session import FOREVER
from pprofpy.target import Watched
from pprofpy.target.launch import Interruption, interruptible
from pprofpy.units import format_duration

EPILOG = """\b
Examples:
  pprofpy heap --pid 1234                       show the lines that hold memory
  pprofpy heap -p 1234 --snapshots 6 -d 60      find leaks: what grows from snapshot to snapshot
  pprofpy heap -p 1234 --sample-index alloc_space   show who allocates most, freed or not
  pprofpy heap -p 1234 --engine tracemalloc     record every block; slows the process
  pprofpy heap --name gunicorn -s               record all processes that match, and their children
  pprofpy heap -- python app.py                 start a program and record until it ends
"""

SAMPLE_TYPES = ("inuse_space", "inuse_objects", "alloc_space", "alloc_objects")
DEFAULT_ROWS = 10
_REMARK_EVERY_S = 1.0


@click.command("heap", epilog=EPILOG, context_settings={"allow_interspersed_args": False})
@target_options
@duration_option
@window_option
@subprocesses_option
@click.option(
    "--engine", type=click.Choice(["auto", *heap.ENGINES]), default="auto", show_default=True,
    help="sampling: estimate cheaply. tracemalloc: record every block, slowly. auto: sampling, unless the process "
    "traces already.",
)  # fmt: skip
@click.option(
    "--sample-bytes", type=Size(), metavar="SIZE", default=heap.DEFAULT_SAMPLE_BYTES, show_default="512k",
    help="Take one sample every SIZE allocated bytes, on average (sampling).",
)  # fmt: skip
@click.option(
    "--frames", type=int, metavar="N", default=0, help="Keep at most N frames of a stack. Default: 64; tracemalloc: 1."
)
@click.option(
    "--snapshots", type=int, metavar="N", default=1, help="Take N snapshots, rank what grows, save the first one, too."
)
@click.option("--gc", "collect", is_flag=True, help="Run the garbage collector before each snapshot.")
@click.option("--types", is_flag=True, help="Show the types that take most memory, and what holds their objects.")
@click.option(
    "--sample-index", type=click.Choice(SAMPLE_TYPES), default=SAMPLE_TYPES[0], show_default=True,
    help="Show what is in use at the end, or what was allocated meanwhile.",
)  # fmt: skip
@click.option("--functions", is_flag=True, help="Show one row per function instead of per line.")
@output_options
@rows_option(DEFAULT_ROWS)
@json_option
@verbose_option
def command(
    duration_ns: int | None,
    window_ns: int,
    sample_index: str,
    functions: bool,
    subprocesses: bool,
    nodecount: int,
    as_json: bool,
    verbose: bool,
    **others: Any,
) -> None:
    """Record which code allocates a running Python process's memory, and how much stays in use.

    The process needs no preparation. Memory allocated before the attach is not recorded, unless the process traced
    already (PYTHONTRACEMALLOC). Ctrl-C ends the recording early and keeps it.
    Without --pid, --name or a COMMAND, pprofpy records the only Python process, or asks which.
    """
    choice = Choice.of(others, children=subprocesses)
    choice.check()
    output = Output.of(others.pop("output"), others.pop("format_name"), force=others.pop("force"))
    first_output = _for_the_first(output) if others["snapshots"] > 1 else None
    if duration_ns is None:
        duration_ns = FOREVER if choice.command and others["snapshots"] == 1 else DEFAULT_DURATION_NS
    options = HeapOptions(duration_ns=duration_ns, **others)
    options.check()
    if subprocesses:
        check_for_several(options)
    shown: dict[str, Option] = {
        "nodecount": nodecount,
        "sample_index": sample_index,
        "functions": functions,
        "verbose": verbose,
    }
    with interruptible() as interruption:
        try:
            with ExitStack() as spool:
                with chosen(choice, interruption) as target:
                    windows = spool.enter_context(spooled("heap", target))
                    length = Length(options.duration_ns, window_ns)
                    made, first_snapshot = _record(target, options, subprocesses, shown, windows, length, interruption)
                made.profile.value_index(sample_index)  # before anything is shown: the engine may not know it
                first = _keep_first(first_snapshot, target, first_output)
                path = keep(made, target, output)  # last: views take the newest file
            if not output.is_stdout:
                present(made, str(path), as_json=as_json)
            next_steps(path, "heap", is_empty=not len(made.profile))
            if first and path:
                _how_to_compare(first, path)
        finally:
            wait_for_command(interruption.child)


def _for_the_first(output: Output) -> Output | None:
    """Where the first of several snapshots goes: beside the last one, as in `shop-first.pb.gz`."""
    if output.is_stdout:
        return None
    path = Path(output.path)
    name = str(path.with_name(f"{Path(path.name.removesuffix('.gz')).stem}-first.pb.gz")) if output.path else ""
    return Output.of(name, "pprof", force=output.force)


def _keep_first(profile: Profile | None, target: Watched, output: Output | None) -> Path | None:
    if output is None or profile is None:
        return None
    return keep(Recording("", profile), target, output, name="heap-first")


def _how_to_compare(first: Path, last: Path) -> None:
    words = f"{shlex.quote(str(first))} {shlex.quote(str(last))}"
    remark(f"first snapshot: {first}")
    remark(f"  what has grown:  pprofpy top --diff-base {words}")
    remark(f"  compare in Go:   go tool pprof -sample_index=inuse_space -top -diff_base {words}")


def _record(
    target: Watched,
    options: HeapOptions,
    subprocesses: bool,
    shown: Mapping[str, Option],
    windows: Spool,
    length: Length,
    interruption: Interruption,
) -> tuple[Recording, Profile | None]:
    """Record; returns the recording, and the profile of the first of several snapshots."""
    how_long = f"for {format_duration(options.duration_ns)}" if options.duration_ns else "until it ends"
    remark(f"recording the heap of {target!s} {how_long}; Ctrl-C ends early")
    told, told_s = "", time.monotonic()

    def fetching(done: int, count: int) -> None:
        nonlocal told, told_s
        what = f"fetching the traces: {done:,} of {count:,}" if count else "the process copies its traces"
        if what != told and time.monotonic() > told_s + _REMARK_EVERY_S:
            told, told_s = what, time.monotonic()
            remark(what)

    one = HeapRecorder(options, remark, fetching)
    several = HeapFamily(options, remark) if subprocesses else None
    with several or one as recorder, progress_bar("recording", options.duration_ns) as progress:
        recorder.watch_all(target)
        made = record([recorder], windows, shown, length, interruption, target, progress)
        if shown.get("verbose"):
            print_costs(recorder)
    return made, one.first_snapshot if options.snapshots > 1 else None


def present(recording: Recording, source: str, *, as_json: bool) -> None:
    """Print a recording: the top table, the growth if there are snapshots, and what stands beside it."""
    record = HeapRecording.from_recording(recording)
    profile, nodecount = recording.profile, recording.number("nodecount", DEFAULT_ROWS)
    sample_index = recording.text("sample_index")
    value_index = profile.value_index(sample_index)
    view = replace(
        view_of(profile, source),
        sample_index=sample_index,
        value_index=value_index,
        total=total_of(profile, value_index),
        verbose=recording.flag("verbose"),
        granularity=Granularity.FUNCTIONS if recording.flag("functions") else Granularity.LINES,
    )
    grown = growth.build(record.snapshots, nodecount) if len(record.snapshots) > 1 else None
    table = top_report.build(view.header(), view.graph(), Limits(nodecount), ties_by_name=False)
    if as_json:
        data = {**top_report.to_json(table), **heap_report.to_json(record), "path": source}
        print_json("heap", data | ({"growth": growth.to_json(grown)} if grown else {}))
        return
    console = stdout_console()
    costs.render(table, console)
    if grown:
        say()
        growth.render(grown, console)
    if record.types:
        say()
        heap_report.render_types(record.types[: nodecount or None], record.objects_count, console)
    say()
    heap_report.render_memory(record.memory, console, record.processes)
