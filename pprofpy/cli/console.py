"""The one place that writes to standard output and standard error, and where text that others chose is made harmless.

Names, paths and messages come from targets, files and environments. Whatever the rest of the program prints passes here
(tables: through `write_lines`, onto `stdout_console`), so that nothing but our own colours can steer a terminal.
"""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from pprofpy.text import json_text, printable_lines

if TYPE_CHECKING:
    from rich.console import Console


def remark(text: str) -> None:
    """Print lines to standard error. If it is full or closed, the lines are lost: a recording must not be."""
    with suppress(OSError, ValueError):
        sys.stderr.write(printable_lines(text) + "\n")
        sys.stderr.flush()


def say(text: str = "") -> None:
    """Print lines to standard output."""
    click.echo(printable_lines(text))


def print_data(data: object, *, indent: int | None = 2) -> None:
    """Print a JSON document to standard output, on one line if `indent` is None."""
    sys.stdout.write(json_text(data, indent=indent) + "\n")


def write_data(data: bytes) -> None:
    """Write a file's content to standard output; on a terminal, only as escaped text.

    Args:
        data: The content.
    """
    if sys.stdout.isatty():
        say(data.decode("utf-8", "replace").removesuffix("\n"))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def stdout_console() -> Console:
    """Return a console on standard output, with colour only on a terminal and without NO_COLOR."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the locale cannot write is no error
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
