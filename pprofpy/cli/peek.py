"""`pprofpy peek`: callers and callees of some functions."""

from __future__ import annotations

import click

from pprofpy.cli.console import stdout_console
from pprofpy.cli.view import View, print_json, view_options
from pprofpy.reports import peek


@click.command("peek")
@click.argument("pattern", metavar="REGEX")
@view_options()
@click.option("--cum", is_flag=True, help="Sort by cum: what a function and its callees cost.")
def command(view: View, pattern: str, cum: bool) -> None:
    """Functions that match REGEX, between all of their callers (above) and callees (below).

    Shows the latest recording, or the PROFILE files named, summed up; '-' is standard input.
    """
    table = peek.build(view.header(), view.graph(), pattern, by_cum=cum, unit=view.unit)
    if view.as_json:
        print_json("peek", peek.to_json(table))
    else:
        peek.render(table, stdout_console())
