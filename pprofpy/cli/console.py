"""The one place that opens standard output for tables."""

from __future__ import annotations

import io
import sys

from rich.console import Console


def stdout_console() -> Console:
    """A console on standard output: colour on a terminal only, and none if NO_COLOR is set."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the locale cannot write is no error
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
