"""`pprofpy list`: show source code with the cost of each line."""

from __future__ import annotations

import click

from pprofpy.cli import completion
from pprofpy.cli.console import stdout_console
from pprofpy.cli.view import View, print_json, view_options
from pprofpy.formats.files import STDIO, owners_of_input, read_recording
from pprofpy.model.sources import KeptSource, sources_of
from pprofpy.reports import list as listing
from pprofpy.reports.source_finder import SourceFinder


@click.command("list")
@click.argument("pattern", metavar="REGEX", shell_complete=completion.functions)
@view_options(granularity=False)
@click.option("--source-path", metavar="DIR", multiple=True, help="Search DIR for source files; repeatable.")
@click.option(
    "--trim-path", metavar="PREFIX", multiple=True, help="Strip PREFIX from the profile's paths first; repeatable."
)
def command(view: View, pattern: str, source_path: tuple[str, ...], trim_path: tuple[str, ...]) -> None:
    """Show the source of functions that match REGEX, with flat and cum of each line.

    Reads the latest recording, or the sum of the PROFILE files ('-': standard input).
    """
    finder = SourceFinder(source_path, trim_path, owners_of_input(), _kept(view.sources))
    found = listing.build(view.header(), view.profile, view.value_index, pattern, finder, view.unit)
    if view.as_json:
        print_json("list", listing.to_json(found))
    else:
        listing.render(found, stdout_console())


def _kept(paths: tuple[str, ...]) -> dict[str, KeptSource] | None:
    """The source that recordings bring along; None if none does."""
    found = [sources_of(read_recording(path)) for path in paths if path != STDIO]
    brought = [one for one in found if one is not None]
    return {name: source for one in brought for name, source in one.items()} if brought else None
