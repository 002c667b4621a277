"""`pprofpy show`: print a saved recording as the command that made it did."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import click

from pprofpy.cli import completion, confinement
from pprofpy.cli.main import COMMANDS
from pprofpy.cli.options import header_option, json_option, no_fold_option
from pprofpy.cli.view import latest
from pprofpy.formats.files import STDIO, read_recording
from pprofpy.model.recording import Recording

EPILOG = """\b
Examples:
  pprofpy show                          print the latest recording
  pprofpy show gil.pb.gz                print all that 'pprofpy gil' printed
  pprofpy show --json heap.pb.gz        print a recording as JSON
"""

_KINDS = ("cpu", "heap", "off-cpu", "gil", "sched-latency", "events")
"""The commands that can print what they recorded: their modules have `present(recording, source, as_json=...)`."""

_OTHERS = "events"
"""Prints what another program wrote: as a table of functions."""


@click.command("show", epilog=EPILOG)
@click.argument("path", metavar="[FILE]", default="", shell_complete=completion.recordings)
@header_option
@no_fold_option
@json_option
def command(path: str, as_json: bool, no_fold: bool, verbose: bool) -> None:
    """Print a recording as the command that made it did.

    Reads the latest recording, or FILE ('-': standard input). Shows another program's profile as a table of functions.
    """
    confinement.before_reading()
    path = path or latest()
    recording = read_recording(path)
    asked = {name: True for name, is_on in (("no_fold", no_fold), ("verbose", verbose)) if is_on}
    present(replace(recording, shown={**recording.shown, **asked}), path, as_json=as_json)


def present(recording: Recording, source: str, *, as_json: bool) -> None:
    """Print a recording through the command that made it."""
    module: Any = import_module(COMMANDS[recording.kind if recording.kind in _KINDS else _OTHERS][0])
    module.present(recording, "" if source == STDIO else source, as_json=as_json)
