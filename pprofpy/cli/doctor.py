"""`pprofpy doctor`: check what works here and for a process, and name the command that fixes the rest."""

from __future__ import annotations

import textwrap
from dataclasses import asdict

import click
from rich.console import Console
from rich.text import Text

from pprofpy.cli import completion
from pprofpy.cli.console import stdout_console
from pprofpy.cli.options import json_option
from pprofpy.cli.view import print_json
from pprofpy.collectors import doctor
from pprofpy.collectors.doctor import Check, Verdict
from pprofpy.errors import NotPossibleError, UsageError
from pprofpy.reports.text import write_lines
from pprofpy.target import find_by_name
from pprofpy.target.permission import require_proc

_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red"}
_AFFECTED = {
    "cpu": "cpu",
    "heap": "heap",
    "pyspy": "cpu --engine py-spy",
    "kernel": "eBPF commands",
    "stacks": "cpu --engine bpf, gil, events, trace --stacks, the Python stacks of off-cpu and sched-latency",
}


@click.command("doctor")
@click.option("-p", "--pid", type=int, metavar="PID", help="Check this process, too.", shell_complete=completion.pids)
@click.option("--name", metavar="REGEX", help="Check the process whose command line matches, too.")
@json_option
def command(pid: int | None, name: str | None, as_json: bool) -> int:
    """Check what works on this machine and for a process, and say how to fix the rest.

    Changes nothing. Exits with status 0 if 'pprofpy cpu' can work, 4 if not.
    """
    require_proc()
    if name is not None:
        if pid is not None:
            raise UsageError("--pid and --name both name a process", "leave one of them out")
        pid = find_by_name(name).pid
    checks = doctor.examine(pid)
    works = doctor.cpu_works(checks)
    if as_json:
        print_json("doctor", {"cpu_works": works, "checks": [asdict(check) for check in checks]})
    else:
        render(checks, works, stdout_console())
    return 0 if works else NotPossibleError.exit_code


def render(checks: list[Check], works: bool, console: Console) -> None:
    """Print the checks, and whether 'pprofpy cpu' works."""
    width = max(len(check.topic) for check in checks)
    for check in checks:
        write_lines(console, _lines(check, width, console.width if console.is_terminal else 0))
    verdict = "'pprofpy cpu' works" if works else "'pprofpy cpu' does not work here"
    write_lines(console, ["", Text(f"{verdict}.", "bold")])


def _lines(check: Check, width: int, room: int) -> list[Text]:
    """One check. `room`: of a line, 0 for no limit; commands are not broken, so that they can be copied."""
    verdict = (f"{check.verdict:<8}", _STYLES[check.verdict])
    lines = [Text.assemble(verdict, f"{check.topic:<{width}}  {check.finding}")]
    indent = " " * (8 + width + 2)
    if check.verdict is not Verdict.OK and check.needed_for:
        affected = ", ".join(_AFFECTED[name] for name in check.needed_for.split())
        text = f"{indent}needed for: {affected}"
        broken = (
            textwrap.wrap(text, room, subsequent_indent=f"{indent}  ", break_long_words=False, break_on_hyphens=False)
            if room
            else [text]
        )
        lines += map(Text, broken)
    if check.remedy:
        lines.append(Text(f"{indent}-> {check.remedy}"))
    return lines
