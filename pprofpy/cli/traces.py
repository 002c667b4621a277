"""`pprofpy traces`: show all stacks with their values and labels."""

from __future__ import annotations

import click

from pprofpy.cli.console import stdout_console
from pprofpy.cli.view import View, print_json, view_options
from pprofpy.reports import traces


@click.command("traces")
@view_options()
def command(view: View) -> None:
    """Show all stacks with values and labels, costliest first, innermost function on top.

    Reads the latest recording, or the sum of the PROFILE files ('-': standard input).
    """
    found = traces.build(view.header(), view.profile, view.value_index, view.graph(), view.unit)
    if view.as_json:
        print_json("traces", traces.to_json(found))
    else:
        traces.render(found, stdout_console())
