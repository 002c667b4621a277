"""`pprofpy top`: show the functions that cost most."""

from __future__ import annotations

import click

from pprofpy.cli.console import stdout_console
from pprofpy.cli.options import rows_option
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
@click.option("--cum", is_flag=True, help="Sort by cum: the cost of a function and its callees.")
@rows_option(_STANDARD.node_count)
@click.option(
    "--nodefraction", type=float, default=_STANDARD.node_fraction, show_default=True,
    help="Hide rows whose cum is below this share of the total (0 to 1).",
)  # fmt: skip
def command(view: View, cum: bool, nodecount: int, nodefraction: float) -> None:
    """Show the functions (or lines, or files) that cost most.

    Reads the latest recording, or the sum of the PROFILE files ('-': standard input).

    \b
    flat  what a function spent itself; flat% is its share of the total
    sum%  the sum of flat% of this row and all rows above it
    cum   what a function and all its callees spent
    """
    show(view, Limits(nodecount, nodefraction), by_cum=cum)
