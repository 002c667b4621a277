"""`pprofpy flamegraph`: draw a profile as a flame graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from pprofpy.cli.console import remark, write_data
from pprofpy.cli.options import no_fold_option
from pprofpy.cli.view import View, view_of, view_options
from pprofpy.errors import UsageError
from pprofpy.formats.files import STDIO, save
from pprofpy.model.combine import root_by_label
from pprofpy.model.graph import Granularity, build_graph
from pprofpy.model.recording import Recording
from pprofpy.model.sleepers import find_sleepers, in_words
from pprofpy.reports import flamegraph
from pprofpy.reports.flamegraph import FlameOptions
from pprofpy.reports.trim import AUTO_UNIT
from pprofpy.units import format_duration, format_value

_STANDARD = FlameOptions()
_OTHER_PICTURES = {".html", ".htm", ".xhtml", ".svgz", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf", ".json", ".gz"}


def draw(recording: Recording) -> bytes:
    """A recording as a picture, with standard options."""
    fold = not recording.flag("no_fold")
    return _svg(view_of(recording.profile), _STANDARD, Granularity.FILEFUNCTIONS, fold=fold)


@click.command("flamegraph")
@view_options(granularity=False, is_table=False)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="flamegraph.svg",
    help="Write to FILE ('-': standard output). Default: flamegraph.svg.",
)
@click.option("--title", default="", help="Set the heading.")
@click.option("--by", metavar="LABEL", default="", help="Split at the root by this label: thread, tid, pid.")
@click.option("--by-line", is_flag=True, help="Draw one frame per line instead of per function.")
@click.option(
    "--root",
    type=click.Choice(["top", "bottom"]),
    default="top",
    show_default=True,
    help="Put the outermost call at the top or at the bottom.",
)
@click.option(
    "--min-percent", type=click.FloatRange(0, 100), default=_STANDARD.min_percent, show_default=True,
    help="Hide frames narrower than this share, in percent.",
)  # fmt: skip
@no_fold_option
@click.option("--force", is_flag=True, help="Replace FILE even if pprofpy did not write it.")
def command(
    view: View,
    output: str,
    title: str,
    by: str,
    by_line: bool,
    root: str,
    min_percent: float,
    no_fold: bool,
    force: bool,
) -> None:
    """Draw a flame graph of the latest recording, or of the sum of the PROFILE files.

    Writes one SVG file. In a browser, a click zooms into a frame, '/' searches, Escape goes back. A frame is as wide
    as it is costly. Siblings are sorted by name, not by time.
    """
    _check_name(output)
    options = FlameOptions(
        title or _title(view), root == "top", min_percent, "auto" if view.unit == AUTO_UNIT else view.unit
    )
    granularity = Granularity.LINES if by_line else Granularity.FILEFUNCTIONS
    data = _svg(view, options, granularity, by, fold=not no_fold)
    if output == STDIO:
        write_data(data)
        return
    path = Path(output)
    save(data, path, force=force)
    remark(f"wrote {path} ({format_value(len(data), 'bytes')}): open it in a browser")


def _check_name(output: str) -> None:
    """A browser believes a file's name, and shows SVG as text or not at all under another one."""
    suffix = Path(output).suffix.lower()
    if suffix in _OTHER_PICTURES:
        raise UsageError(
            f"a flame graph is SVG, not {suffix[1:]}", "give a name that ends in .svg: any browser opens it"
        )


def _svg(view: View, options: FlameOptions, granularity: Granularity, by: str = "", *, fold: bool) -> bytes:
    profile = view.profile
    sleepers = find_sleepers(profile) if fold else None
    if sleepers:
        profile = profile.select(~sleepers.rows)
        left_out = f"Not drawn: {in_words(sleepers)} ({format_duration(sleepers.time_ns)}); --no-fold draws them"
        options = replace(options, left_out=left_out)
    if by:
        keys = {label.key for labels in profile.label_sets for label in labels}
        if by not in keys:
            raise UsageError(
                f"no sample has a label {by!r}", f"labels in this profile: {', '.join(sorted(keys)) or 'none'}"
            )
        profile = root_by_label(profile, by)
    graph = build_graph(profile, view.value_index, granularity, view.total)
    return flamegraph.render(flamegraph.build(view.header(), graph, options), options).encode()


def _title(view: View) -> str:
    names = ", ".join(Path(source).name for source in view.sources[:3])
    return names + (" …" if len(view.sources) > 3 else "") or _STANDARD.title
