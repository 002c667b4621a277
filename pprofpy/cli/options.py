"""Options that several commands share, each defined once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pprofpy.session.session import WINDOW_NS
from pprofpy.units import parse_bytes, parse_duration_ns

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.4 on
    """Parse a duration on the command line into nanoseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse `30`, `30s`, `500ms` or `2m` into nanoseconds."""
        return value if isinstance(value, int) else parse_duration_ns(value)


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only from click 8.4 on
    """Parse a size on the command line into bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse `65536`, `64k` or `1M` into bytes."""
        return value if isinstance(value, int) else parse_bytes(value)


duration_option = click.option(
    "-d", "--duration", "--seconds", "duration_ns", type=Duration(), metavar="TIME",
    help="Record for TIME: 30, 30s, 500ms, 2m. Default: 30 s, or until the COMMAND ends.",
)  # fmt: skip

window_option = click.option(
    "--window", "window_ns", type=Duration(), default=WINDOW_NS, metavar="TIME", hidden=True,
    help="Write a window to disk every TIME; a crash loses at most one window.",
)  # fmt: skip

SUBPROCESSES = "Record child processes, too; with --name, all processes that match."
subprocesses_option = click.option("-s", "--subprocesses", is_flag=True, help=SUBPROCESSES)

label_option = click.option(
    "--label", "labels", multiple=True, metavar="NAME=MODULE:VARIABLE",
    help="Label stacks with the value of a contextvars.ContextVar, such as route=myapp.context:route_var.",
)  # fmt: skip

tasks_option = click.option(
    "--tasks", "awaiting", is_flag=True,
    help="Show by asyncio task: put the stacks of the tasks that await the running one below it.",
)  # fmt: skip

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

no_fold_option = click.option("--no-fold", is_flag=True, help="Show each thread, also those that did not run.")

verbose_option = click.option(
    "-v", "--verbose", is_flag=True, help="Report how it was recorded, and how much memory the recording used."
)

header_option = click.option("-v", "--verbose", is_flag=True, help="Report how the profile was recorded, too.")


def rate_option(default_hz: int, kind: Any, what: str) -> Callable[[_Command], _Command]:
    """Give a command -r/--rate with this click type; it receives `rate_hz`, in samples per second."""
    return click.option(
        "-r", "--rate", "-F", "--frequency", "rate_hz", type=kind, metavar="HZ", default=default_hz,
        show_default=True, help=what,
    )  # fmt: skip


def rows_option(default: int, *, is_n_free: bool = True) -> Callable[[_Command], _Command]:
    """Give a command -N/--nodecount, the limit of a table's rows; it receives `nodecount`.

    Args:
        default: So many, if the user says nothing.
        is_n_free: Take -n for it, too, as it was once called: the command has no --native, which is -n everywhere.
    """
    return click.option(
        "-N",
        *(["-n"] if is_n_free else []),
        "--nodecount",
        type=click.IntRange(min=0),
        metavar="N",
        default=default,
        show_default=True,
        help="Show at most N rows (0: all).",
    )
