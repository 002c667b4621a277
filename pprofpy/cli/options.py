"""Options that several commands have, each spelled and explained once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pprofpy.session.session import WINDOW_NS
from pprofpy.units import parse_bytes, parse_duration_ns

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.4 on
    """A length of time on the command line, in nanoseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """`30`, `30s`, `500ms`, `2m`."""
        return value if isinstance(value, int) else parse_duration_ns(value)


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.4 on
    """A number of bytes on the command line: `64k`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """`65536`, `64k`, `1M`."""
        return value if isinstance(value, int) else parse_bytes(value)


duration_option = click.option(
    "-d", "--duration", "--seconds", "duration_ns", type=Duration(), metavar="TIME",
    help="How long: 30, 30s, 500ms, 2m. By default 30 s, or until the COMMAND ends.",
)  # fmt: skip

window_option = click.option(
    "--window", "window_ns", type=Duration(), default=WINDOW_NS, metavar="TIME", hidden=True,
    help="Write to disk what was recorded this often; a crash costs at most so much.",
)  # fmt: skip

subprocesses_option = click.option("-s", "--subprocesses", is_flag=True, help="Follow child processes, too.")

json_option = click.option("--json", "as_json", is_flag=True, help="Print data for programs.")

verbose_option = click.option("-v", "--verbose", is_flag=True, help="Say how much memory the recording took.")


def rate_option(default_hz: int, kind: Any, what: str) -> Callable[[_Command], _Command]:
    """-r/--rate, with this click type; a command receives `rate_hz`."""
    return click.option(
        "-r", "--rate", "-F", "--frequency", "rate_hz", type=kind, metavar="HZ", default=default_hz,
        show_default=True, help=what,
    )  # fmt: skip


def rows_option(default: int, *names: str) -> Callable[[_Command], _Command]:
    """--nodecount, and what else it is called: how many rows a table has; a command receives `nodecount`."""
    return click.option(
        *names, "--nodecount", type=click.IntRange(min=0), default=default, help="Rows to show; 0: all."
    )
