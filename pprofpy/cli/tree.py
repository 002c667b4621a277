"""`pprofpy tree`: show every function with its callers and callees."""

from __future__ import annotations

import click

from pprofpy.cli.console import stdout_console
from pprofpy.cli.options import rows_option
from pprofpy.cli.view import View, print_json, view_options
from pprofpy.reports import tree
from pprofpy.reports.trim import Limits


@click.command("tree")
@view_options()
@click.option("--cum", is_flag=True, help="Sort by cum: the cost of a function and its callees.")
@rows_option(tree.STANDARD.node_count)
@click.option(
    "--nodefraction", type=float, default=tree.STANDARD.node_fraction, show_default=True,
    help="Hide functions whose cum is below this share of the total (0 to 1).",
)  # fmt: skip
@click.option(
    "--edgefraction", type=float, default=tree.STANDARD.edge_fraction, show_default=True,
    help="Hide calls below this share of the total (0 to 1).",
)  # fmt: skip
def command(view: View, cum: bool, nodecount: int, nodefraction: float, edgefraction: float) -> None:
    """Show every function between its callers (above) and its callees (below).

    Reads the latest recording, or the sum of the PROFILE files ('-': standard input).
    """
    limits = Limits(nodecount, nodefraction, edgefraction)
    table = tree.build(view.header(), view.graph(), limits, by_cum=cum, unit=view.unit)
    if view.as_json:
        print_json("tree", tree.to_json(table))
    else:
        tree.render(table, stdout_console())
