"""Shared code of all recording commands: output file, progress bar, and hints on what to do next."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import click

from pprofpy.cli.console import remark, write_data
from pprofpy.cli.kept_sources import keep_sources
from pprofpy.errors import OutputError
from pprofpy.formats import FORMATS, encode, format_of
from pprofpy.formats.files import STDIO, name_of, save, save_recording
from pprofpy.formats.output import check_free, is_direct
from pprofpy.formats.recording import write as write_recording
from pprofpy.model.recording import Recording
from pprofpy.target import Watched
from pprofpy.units import format_duration

_Command = TypeVar("_Command", bound=Callable[..., Any])

PICTURES = {"svg": "pprofpy.cli.flamegraph"}
"""Formats that cannot be read again -> module with `draw(recording) -> bytes`. The recording is kept as well."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where a recording is to go.

    Attributes:
        path: What -o says; empty for the profile folder, `-` for standard output.
        format: One of FORMATS or PICTURES.
        force: Replace a file that pprofpy did not write.
    """

    path: str
    format: str
    force: bool

    @classmethod
    def of(cls, path: str, format_name: str | None, *, force: bool) -> Output:
        """Settle format and place before anything is recorded.

        Raises:
            UsageError: The file's name does not tell its format, and nothing else does.
            OutputError: It could not be written there.
        """
        if path and path != STDIO:
            check_free(Path(path), force=force)
        if not format_name:
            named = bool(path) and path != STDIO and not is_direct(Path(path))
            suffix = Path(path).suffix.lower().lstrip(".")
            format_name = suffix if suffix in PICTURES else format_of(path) if named else "pprof"
        return cls(path, format_name, force)

    @property
    def is_stdout(self) -> bool:
        """Return True if the file goes to standard output, where no table may be then."""
        return self.path == STDIO


def output_options(command: _Command) -> _Command:
    """Give a click command -o, -f and --force; it receives `output`, `format_name` and `force`."""
    options = (
        click.option("-o", "--output", metavar="FILE", default="", help="Write to FILE ('-': standard output)."),
        click.option(
            "-f", "--format", "format_name", type=click.Choice([*FORMATS, *PICTURES]),
            help="Write this format. Default: by FILE's suffix, else pprof.",
        ),
        click.option("--force", is_flag=True, help="Replace a file that pprofpy did not write."),
    )  # fmt: skip
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def keep(recording: Recording, target: Watched | None, output: Output, *, name: str = "") -> Path | None:
    """Write a recording to its output; if that fails, save it to the profile folder.

    Args:
        recording: The recording.
        name: How the file's name begins; by default as the command's.
        target: What was recorded; None for the whole system.
        output: Where it was wanted.

    Returns:
        The file that views can read; None if it went to standard output.

    Raises:
        OutputError: It is not where it was wanted. The message says where it is.
    """
    name = file_name(name or recording.kind, target)
    recording = keep_sources(recording, target)
    data = _encoded(recording, output.format)
    if output.is_stdout:
        write_data(data)
        return None
    if not output.path:
        suffix = ".svg" if output.format in PICTURES else FORMATS[output.format].suffixes[0]
        return save_recording(data, name + suffix)
    try:
        save(data, Path(output.path), force=output.force)
    except OutputError as error:
        rescued = save_recording(_encoded(recording, "pprof"), name + ".pb.gz")
        moved = OutputError(f"{error.message}; the recording is safe in {rescued}", error.hint)
        moved.is_rescued = True
        raise moved from error
    if output.format in PICTURES:
        remark(f"picture: {output.path}")
        return save_recording(_encoded(recording, "pprof"), name + ".pb.gz")
    return Path(output.path)


def next_steps(path: Path | None, kind: str = "cpu", *, is_empty: bool = False) -> None:
    """Print where the recording is and what to type next. `kind`: the command that made it."""
    if path is None:
        return
    remark(f"saved: {path}")
    if is_empty:
        return
    quoted = shlex.quote(str(path))
    remark(f"  source by line:  pprofpy list FUNCTION {quoted}")
    remark(f"  flame graph:     pprofpy flamegraph {quoted} -o {kind}.svg")


@contextmanager
def progress_bar(what: str, duration_ns: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar if standard error is a terminal.

    Yields:
        A function to be told the nanoseconds recorded so far. The bar appears at its first call, so that the thread
        which draws it does not yet run while an engine is started.
    """
    if not sys.stderr.isatty():
        yield lambda elapsed_ns: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[elapsed]}", markup=False),
        console=Console(file=sys.stderr),
        transient=True,
    )
    task = bar.add_task(what, total=duration_ns, elapsed="")
    whole = f" of {format_duration(duration_ns)}" if duration_ns else ""

    def show(elapsed_ns: int) -> None:
        bar.start()
        seconds = elapsed_ns // 1_000_000_000
        bar.update(task, completed=elapsed_ns, elapsed=f"{seconds} s{whole}")

    try:
        yield show
    finally:
        bar.stop()


def _encoded(recording: Recording, format_name: str) -> bytes:
    if format_name in PICTURES:
        drawn: bytes = import_module(PICTURES[format_name]).draw(recording)
        return drawn
    if format_name == "pprof":
        return write_recording(recording)
    return encode(recording.profile, format_name)


def file_name(kind: str, target: Watched | None) -> str:
    """How the file of a recording is called, but for its suffix."""
    return name_of(kind, target.name, target.members[0].pid) if target else name_of(kind, "", 0)
