"""The pprofpy command: the list of its subcommands, and the one place where errors become messages.

Subcommands are imported only when they are used, so that `pprofpy --help` starts fast.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import click

from pprofpy import __version__
from pprofpy.errors import InterruptedEarly, OutputError, PprofpyError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

COMMANDS = {
    "cpu": ("pprofpy.cli.cpu", "Record where a running process spends CPU time."),
    "heap": ("pprofpy.cli.heap", "Record which code allocates a running process's memory, and what of it stays."),
    "trace": ("pprofpy.cli.trace", "System calls and kernel events as they happen."),
    "timeline": ("pprofpy.cli.timeline", "What each thread did all the time, also for Perfetto."),
    "sched-latency": ("pprofpy.cli.sched_latency", "How long threads that could run waited for a CPU."),
    "off-cpu": ("pprofpy.cli.off_cpu", "Where threads block, for how long, and who wakes them."),
    "gil": ("pprofpy.cli.gil", "Who waits for the interpreter lock, and who holds it."),
    "events": ("pprofpy.cli.events", "Any kernel event as a profile: how often, how much, by Python stack."),
    "show": ("pprofpy.cli.show", "Print a recording again, as the command did that made it."),
    "top": ("pprofpy.cli.top", "Functions (or lines) that cost the most."),
    "list": ("pprofpy.cli.list", "Source code with the cost of each line."),
    "peek": ("pprofpy.cli.peek", "Callers and callees of a function."),
    "tree": ("pprofpy.cli.tree", "Every function with its callers and callees."),
    "traces": ("pprofpy.cli.traces", "All stacks, with their values and labels."),
    "flamegraph": ("pprofpy.cli.flamegraph", "A flame graph to search and zoom in a browser (SVG)."),
    "export": ("pprofpy.cli.export", "Convert a profile to pprof, speedscope or collapsed stacks."),
    "doctor": ("pprofpy.cli.doctor", "What works on this machine and for this process, and how to mend the rest."),
}
"""Subcommand -> (module with a click command named `command`, one line for the help page)."""

EPILOG = """\b
Examples:
  pprofpy cpu --pid 1234                  record 30 s, show the top functions
  pprofpy cpu --name gunicorn -d 10       find the process by name
  pprofpy list handle_request             source of the latest recording, by line
  pprofpy flamegraph -o cpu.svg           picture of the latest recording
  pprofpy top /tmp/go.pb.gz               any pprof file works as input
"""


class LazyGroup(click.Group):
    """A click group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of COMMANDS (recording first)."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None if there is no such one."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name}: no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest name suggested for a misspelt one."""
        if args[0] not in COMMANDS and (nearest := get_close_matches(args[0], COMMANDS, n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {nearest[0]!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table alone, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def pprofpy() -> None:
    """Profile and trace running Python processes: no restart, no change to the program."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with the status that the README's table gives."""
    if "_PPROFPY_COMPLETE" in os.environ:
        pprofpy.main(prog_name="pprofpy")  # a shell asks for completions: click answers
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after `pprofpy`; by default those of this process.

    Returns:
        The exit status. All messages have been printed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None:  # closed by whoever started us, as `>&-` does
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
    try:
        with pprofpy.make_context("pprofpy", words) as context:
            result = pprofpy.invoke(context)
        sys.stdout.flush()
    except PprofpyError as error:
        return _report(error)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _report(InterruptedEarly("interrupted before anything was recorded"))
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: that is its right, and no error.
        _give_up_stdout()
        return 0
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        _give_up_stdout()
        return _report(OutputError(f"cannot write to standard output: {error.strerror}", "free some space"))
    return result if isinstance(result, int) else 0


def _give_up_stdout() -> None:
    """Let what is still buffered go nowhere, so that Python does not complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: PprofpyError) -> int:
    click.echo(f"pprofpy: {error.message}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)
    return error.exit_code
