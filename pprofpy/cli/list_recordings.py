"""`pprofpy list-recordings`: list the profile folder's recordings, and delete old ones."""

from __future__ import annotations

import time

import click

from pprofpy.cli import confinement
from pprofpy.cli.console import remark, stdout_console
from pprofpy.cli.options import Duration, Size, json_option
from pprofpy.cli.view import print_json
from pprofpy.errors import UsageError
from pprofpy.formats import folder
from pprofpy.formats.files import profile_folder
from pprofpy.reports import list_recordings as report
from pprofpy.text import counted
from pprofpy.units import format_short

EPILOG = """\b
Examples:
  pprofpy list-recordings                          list recordings, newest first
  pprofpy list-recordings --prune --older-than 7d  delete recordings older than a week
  pprofpy list-recordings --prune --keep 500M      delete the oldest, keep 500 MB
  pprofpy show FILE                                print one of them
"""


@click.command("list-recordings", epilog=EPILOG)
@click.option("--prune", is_flag=True, help="Delete recordings chosen by --older-than, --keep or both.")
@click.option(
    "--older-than",
    "age_ns",
    type=Duration(),
    metavar="TIME",
    help="Delete those last written more than TIME ago: 12h, 7d.",
)
@click.option(
    "--keep", "keep_bytes", type=Size(), metavar="SIZE", help="Delete the oldest until at most SIZE is left: 500M."
)
@json_option
def command(prune: bool, age_ns: int | None, keep_bytes: int | None, as_json: bool) -> None:
    """List recordings, newest first: time, command, length, size and target.

    Recordings are in $PPROFPY_DIR, else in ~/.local/state/pprofpy. --prune never deletes one that is being made.
    """
    if prune != (age_ns is not None or keep_bytes is not None):
        raise UsageError(
            "--prune needs --older-than or --keep, and they need --prune", "write, for example, --prune --older-than 7d"
        )
    confinement.before_reading(prunes=prune)
    entries = folder.recordings()
    if prune:
        _prune(entries, age_ns, keep_bytes)
    elif as_json:
        print_json("list-recordings", report.to_json(entries, str(profile_folder())))
    else:
        report.render(entries, str(profile_folder()), stdout_console())


def _prune(entries: list[folder.Entry], age_ns: int | None, keep_bytes: int | None) -> None:
    old = folder.too_old(entries, time.time_ns() - age_ns) if age_ns is not None else []
    rest = [entry for entry in entries if entry not in old]
    gone = old + (folder.too_many(rest, keep_bytes) if keep_bytes is not None else [])
    freed = folder.remove(gone)
    remark(f"{len(gone)} of {counted(len(entries), 'recording')} deleted: {format_short(freed, 'bytes')}")
