"""`pprofpy export`: convert a profile to another format."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

from pprofpy.cli.console import remark, write_data
from pprofpy.cli.view import View, view_options
from pprofpy.errors import UsageError
from pprofpy.formats import FORMATS, encode, format_of
from pprofpy.formats.files import STDIO, save
from pprofpy.model.profile import Profile
from pprofpy.units import format_value

_TEXT_FORMATS = frozenset({"collapsed", "speedscope"})


@click.command("export")
@view_options(granularity=False, is_table=False)
@click.option("-o", "--output", metavar="FILE", default=STDIO, help="Write to FILE ('-': standard output).")
@click.option(
    "-f",
    "--format",
    "format_name",
    type=click.Choice(list(FORMATS)),
    help="Write this format. Default: by FILE's suffix.",
)
@click.option("--force", is_flag=True, help="Replace FILE even if pprofpy did not write it.")
def command(view: View, output: str, format_name: str | None, force: bool) -> None:
    """Convert the latest recording, or the sum of the PROFILE files, to another format.

    \b
    pprof       profile.proto, for 'go tool pprof' and most other tools; keeps everything
    speedscope  JSON for https://www.speedscope.app; one sample type, by thread and function
    collapsed   'outermost;...;innermost count' lines for flame graph scripts; function names only

    Filters apply. --sample-index exports one sample type; without it, pprof keeps all of them.
    """
    chosen = _format(output, format_name)
    data = encode(_exported(view), chosen)
    if output == STDIO:
        write_data(data)
        return
    save(data, Path(output), force=force)
    remark(f"wrote {output}: {chosen}, {format_value(len(data), 'bytes')}")


def _format(output: str, wanted: str | None) -> str:
    """The format to write.

    Raises:
        UsageError: Neither option says, or it is not fit for a terminal.
    """
    if output != STDIO:
        return wanted or format_of(output)
    if wanted is None:
        raise UsageError("standard output has no suffix that names the format", "give --format, or -o FILE")
    if wanted not in _TEXT_FORMATS and sys.stdout.isatty():
        raise UsageError(f"{wanted} is not for reading on a terminal", "write it to a file with -o FILE, or pipe it on")
    return wanted


def _exported(view: View) -> Profile:
    """The view's profile; reduced to one sample type where the user chose one."""
    if not view.sample_index:
        return view.profile
    column = view.value_index
    kind = view.profile.sample_types[column]
    return replace(view.profile, sample_types=(kind,), values=view.profile.values[:, [column]])
