"""The pprofpy command: the list of its subcommands, and the one place where errors become messages.

Subcommands are imported only when they are used, and what only errors need when there is one: `pprofpy --help` takes
little longer than importing click (benchmarks/bench_startup.py).
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module

import click

from pprofpy import __version__
from pprofpy.cli import confinement
from pprofpy.cli.console import remark
from pprofpy.errors import InterruptedEarly, OutputError, PprofpyError, UsageError
from pprofpy.text import printable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_SHORT_OF_MEMORY = re.compile(r"Errno 12\]|[Cc]annot allocate memory|failed to map segment")
_SHORT_OF_FILES = re.compile(r"Errno (23|24)\]|Too many open files")
_LONGEST_REASON, _MOST_CAUSES = 300, 20

COMMANDS = {
    "cpu": ("pprofpy.cli.cpu", "Record where a running process spends CPU time."),
    "heap": ("pprofpy.cli.heap", "Record which code allocates a running process's memory, and how much stays."),
    "trace": ("pprofpy.cli.trace", "Print system calls and kernel events as they happen."),
    "timeline": ("pprofpy.cli.timeline", "Show what each thread did over time; export it to Perfetto."),
    "sched-latency": ("pprofpy.cli.sched_latency", "Measure how long runnable threads wait for a CPU."),
    "off-cpu": ("pprofpy.cli.off_cpu", "Measure where threads block, for how long, and who wakes them."),
    "gil": ("pprofpy.cli.gil", "Measure who waits for the interpreter lock, and who holds it."),
    "events": ("pprofpy.cli.events", "Profile any kernel event by Python stack."),
    "show": ("pprofpy.cli.show", "Print a recording as the command that made it did."),
    "list-recordings": ("pprofpy.cli.list_recordings", "List recordings, newest first; --prune deletes old ones."),
    "top": ("pprofpy.cli.top", "Show the functions (or lines) that cost most."),
    "list": ("pprofpy.cli.list", "Show source code with the cost of each line."),
    "peek": ("pprofpy.cli.peek", "Show the callers and callees of a function."),
    "tree": ("pprofpy.cli.tree", "Show every function with its callers and callees."),
    "traces": ("pprofpy.cli.traces", "Show all stacks with their values and labels."),
    "flamegraph": ("pprofpy.cli.flamegraph", "Draw a flame graph (SVG) to search and zoom in a browser."),
    "export": ("pprofpy.cli.export", "Convert a profile to pprof, speedscope or collapsed stacks."),
    "doctor": ("pprofpy.cli.doctor", "Check what works on this machine and for a process, and how to fix the rest."),
}
"""Subcommand -> (module with a click command named `command`, one line for the help page)."""

EPILOG = """\b
Examples:
  pprofpy cpu --pid 1234                  record 30 s, show the top functions
  pprofpy cpu --name gunicorn -d 10       find the process by name
  pprofpy list handle_request             show the latest recording's source, by line
  pprofpy flamegraph -o cpu.svg           draw the latest recording
  pprofpy top /tmp/go.pb.gz               read any pprof file
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
        with confinement.single_threaded_numpy():
            command = import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{cmd_name}: no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest name suggested for a misspelt one."""
        if args[0] not in COMMANDS:
            from difflib import get_close_matches

            if nearest := get_close_matches(args[0], COMMANDS, n=1):
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
    confinement.own_process()
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
    try:
        result = _invoke(words)
    except PprofpyError as error:
        return _report(error)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        remark(error.format_message())
        return error.exit_code
    except click.ClickException as error:
        return _report(_as_ours(error))
    except (click.Abort, KeyboardInterrupt):
        return _report(InterruptedEarly("interrupted before anything was recorded"))
    except BrokenPipeError:
        # The reader of our output (head, less) has gone: that is its right, and no error.
        _give_up_stdout()
        return 0
    except Exception as error:
        return _report(_unforeseen(error))
    return result if isinstance(result, int) else 0


def _invoke(words: list[str]) -> object:
    """Run a command, and flush what it has printed."""
    with pprofpy.make_context("pprofpy", words) as context:
        _let_a_second_interrupt_end_it()
        result = pprofpy.invoke(context)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_print(error) from error
    return result


def _as_ours(error: click.ClickException) -> PprofpyError:
    """click's error in our own form."""
    message = error.format_message().removesuffix(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return UsageError(
        message[:1].lower() + message[1:], f"'{context.command_path} --help' lists what there is" if context else ""
    )


def _let_a_second_interrupt_end_it() -> None:
    """Where `__main__` takes care of Ctrl-C, let the kernel do so while a command runs code that Python cannot leave.

    Not before: `--help` is over sooner than what this needs is imported.
    """
    import _signal  # type: ignore[import-not-found]  # `signal` takes longer to import

    from pprofpy.system.interrupts import end_at_once, handle_once

    if _signal.getsignal(_signal.SIGINT) is end_at_once:
        handle_once(_signal.SIGINT, end_at_once)


def _unforeseen(error: Exception) -> PprofpyError:
    """Our own error for any other. With PPROFPY_DEBUG=1, its traceback is printed before."""
    import traceback
    from pathlib import Path

    if os.environ.get("PPROFPY_DEBUG") == "1":
        remark("".join(traceback.format_exception(error)).removesuffix("\n"))
    for cause in _causes(error):
        if isinstance(cause, MemoryError) or _SHORT_OF_MEMORY.search(str(cause)):
            return PprofpyError("out of memory", "free some memory, or raise the limit ('ulimit -v', the container's)")
        if _SHORT_OF_FILES.search(str(cause)):
            return PprofpyError("too many open files", "raise the limit: ulimit -n 65536")
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
        return _cannot_print(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" ({Path(last[0].filename).name}:{last[0].lineno})" if last else ""
    what = str(error).partition("\n")[0][:_LONGEST_REASON]
    return PprofpyError(
        f"unexpected error: {type(error).__name__}: {what}{place}",
        "this is a bug in pprofpy: please report it with the output of a run with PPROFPY_DEBUG=1",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came of: importing a library fails for want of memory, too."""
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _cannot_print(error: OSError) -> OutputError:
    _give_up_stdout()
    return OutputError(f"cannot write to standard output: {error.strerror}", "free some space")


def _give_up_stdout() -> None:
    """Let what is still buffered go nowhere, so that Python does not complain about it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: PprofpyError) -> int:
    remark(printable(f"pprofpy: {error.message}"))  # one line, whatever is quoted in it
    if error.hint:
        remark(f"  hint: {error.hint}")
    return error.exit_code
