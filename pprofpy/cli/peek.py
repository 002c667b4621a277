"""`pprofpy peek`: show the callers and callees of some functions."""

from __future__ import annotations

import click

from pprofpy.cli import completion
from pprofpy.cli.console import stdout_console
from pprofpy.cli.view import View, print_json, view_options
from pprofpy.reports import peek


@click.command("peek")
@click.argument("pattern", metavar="REGEX", shell_complete=completion.functions)
@view_options()
@click.option("--cum", is_flag=True, help="Sort by cum: the cost of a function and its callees.")
def command(view: View, pattern: str, cum: bool) -> None:
    """Show functions that match REGEX between all their callers (above) and callees (below).

    Reads the latest recording, or the sum of the PROFILE files ('-': standard input).
    """
    table = peek.build(view.header(), view.graph(), pattern, by_cum=cum, unit=view.unit)
    if view.as_json:
        print_json("peek", peek.to_json(table))
    else:
        peek.render(table, stdout_console())
