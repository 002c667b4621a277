"""`pprofpy top`: the table of what costs the most."""

from __future__ import annotations

import click

from pprofpy.cli.console import stdout_console
from pprofpy.cli.view import View, print_json, view_options
from pprofpy.reports import top
from pprofpy.reports.trim import Limits

_STANDARD = Limits(top.DEFAULT_NODE_COUNT)


def show(view: View, limits: Limits = _STANDARD, *, by_cum: bool = False) -> None:
    """Print the top table of a view."""
    table = top.build(view.header(), view.graph(), limits, by_cum=by_cum, unit=view.unit)
    if view.as_json:
        print_json("top", top.to_json(table))
    else:
        top.render(table, stdout_console())


@click.command("top")
@view_options()
@click.option("--cum", is_flag=True, help="Sort by cum: what a function and its callees cost.")
@click.option(
    "-n", "--nodecount", type=click.IntRange(min=0), default=_STANDARD.node_count, show_default=True,
    help="Show so many rows; 0 for all.",
)  # fmt: skip
@click.option(
    "--nodefraction", type=float, default=_STANDARD.node_fraction, show_default=True,
    help="Hide what has less than this share in cum.",
)  # fmt: skip
def command(view: View, cum: bool, nodecount: int, nodefraction: float) -> None:
    """Functions (or lines, or files) that cost the most.

    Shows the latest recording, or the PROFILE files named, summed up; '-' is standard input.

    \b
    flat  what a function spent itself; flat% is its share of everything
    sum%  the share of this row and all above it
    cum   what it and everything that it called spent
    """
    show(view, Limits(nodecount, nodefraction), by_cum=cum)
