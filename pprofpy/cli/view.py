"""The PROFILE argument and the filter options of all view commands, and the loading of what they name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, TypeVar

import click

from pprofpy.cli import completion, confinement
from pprofpy.cli.console import print_data, remark
from pprofpy.cli.options import header_option, json_option
from pprofpy.errors import UsageError
from pprofpy.formats.files import latest_recording, read_profile
from pprofpy.model import filters
from pprofpy.model.combine import merge
from pprofpy.model.filters import Filters
from pprofpy.model.graph import BASE_LABEL, Granularity, Graph, build_graph, total_of
from pprofpy.model.profile import Label, Profile
from pprofpy.reports import header
from pprofpy.reports.header import Header
from pprofpy.reports.trim import AUTO_UNIT
from pprofpy.units import format_duration, scale

SCHEMA_VERSION = 1
"""Of what --json prints: raised when a member of it changes its name or meaning, not when one is added."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class View:
    """A profile, filtered and labelled as the user asked.

    Attributes:
        profile: Merged, pruned and filtered.
        sources: The files it came from.
        sample_index: The sample type that the user asked for, as typed; empty for the default.
        value_index: The sample type shown.
        total: What 100 % means: the sum before filtering.
        unit: The unit asked for, or "minimum" to let the report choose.
        granularity: What a row stands for.
        filters: The filters that were applied.
        as_json: Print JSON instead of a table.
        verbose: Tell how the profile was recorded, too.
    """

    profile: Profile
    sources: tuple[str, ...]
    sample_index: str
    value_index: int
    total: int
    unit: str
    granularity: Granularity
    filters: Filters
    as_json: bool
    verbose: bool = False

    def graph(self, granularity: Granularity | None = None) -> Graph:
        """Flat and cum of this view, in its granularity unless another is given."""
        return build_graph(self.profile, self.value_index, granularity or self.granularity, self.total)

    def header(self) -> Header:
        """What stands above each report on this view."""
        return header.build(self.profile, self.value_index, self.total, self.filters.active(), verbose=self.verbose)


def view_of(profile: Profile, *sources: str) -> View:
    """A profile as the view commands show it when no option is given; for one that was just recorded."""
    value_index = profile.value_index()
    return View(
        profile,
        sources,
        "",
        value_index,
        total_of(profile, value_index),
        AUTO_UNIT,
        Granularity.FUNCTIONS,
        Filters(),
        as_json=False,
    )


_OPTIONS = (
    click.option(
        "--sample-index", metavar="TYPE", default="", help="Show this sample type. Default: the profile's own."
    ),
    click.option("--focus", metavar="REGEX", default="", help="Keep only samples with a matching frame."),
    click.option("--ignore", metavar="REGEX", default="", help="Drop samples with a matching frame."),
    click.option("--show", metavar="REGEX", default="", help="Show only matching frames."),
    click.option("--hide", metavar="REGEX", default="", help="Hide matching frames; their callers remain."),
    click.option("--show-from", metavar="REGEX", default="", help="Cut stacks above the outermost matching frame."),
    click.option(
        "--tagfocus", metavar="TAG", default="", help="Keep only samples with this label: thread=worker, bytes=4kb:."
    ),
    click.option("--tagignore", metavar="TAG", default="", help="Drop samples with this label."),
    click.option("--base", metavar="PROFILE", default="", help="Subtract this earlier, cumulative profile."),
    click.option(
        "--diff-base", metavar="PROFILE", default="", help="Compare with this profile; percentages are of its total."
    ),
    click.option("--unit", metavar="UNIT", default=AUTO_UNIT, help="Print values in this unit (ms, s, kB, MB)."),
)

_GRANULARITIES = (Granularity.FUNCTIONS, Granularity.LINES, Granularity.FILES)


def view_options(*, granularity: bool = True, is_table: bool = True) -> Callable[[_Command], _Command]:
    """Give a command the PROFILE argument and the reading options; it receives them as `view: View`.

    Args:
        granularity: Offer --functions, --lines and --files.
        is_table: Offer --json and --verbose.
    """

    def decorate(command: _Command) -> _Command:
        @wraps(command)
        def wrapper(**options: Any) -> Any:
            return command(view=_load(options), **options)

        decorated: Any = wrapper
        if is_table:
            decorated = header_option(json_option(decorated))
        for option in reversed(_OPTIONS):
            decorated = option(decorated)
        if granularity:
            for choice in reversed(_GRANULARITIES):
                help_text = f"Show one row per {choice.removesuffix('s')}."
                decorated = click.option(f"--{choice}", is_flag=True, help=help_text)(decorated)
        argument: Any = click.argument(
            "profiles", metavar="[PROFILE]...", nargs=-1, shell_complete=completion.recordings
        )
        return argument(decorated)  # type: ignore[no-any-return]

    return decorate


def load_profiles(paths: Sequence[str], base: str = "", diff_base: str = "") -> Profile:
    """Several files (at least one) as one profile, less a base if one is given."""
    if base and diff_base:
        raise UsageError("--base and --diff-base exclude each other", "use --diff-base to compare two recordings")
    profile = merge([_read(path) for path in paths])
    if not (base or diff_base):
        return profile
    subtracted = _read(base or diff_base)
    subtracted = subtracted.scale([-1.0] * len(subtracted.sample_types))
    if diff_base:
        mark = Label(BASE_LABEL, "true")
        subtracted = replace(subtracted, label_sets=[(*labels, mark) for labels in subtracted.label_sets])
    return merge([profile, subtracted])


def _read(path: str) -> Profile:
    """A file's profile without the frames that its writer calls noise."""
    profile = read_profile(path)
    try:
        return filters.prune(profile)
    except UsageError as error:
        remark(f"pprofpy: {path}: frames that the profile marks as noise are not dropped: {error.message}")
        return profile


def print_json(kind: str, data: Mapping[str, Any]) -> None:
    """One JSON document on standard output, which begins with the name and the version of its schema.

    Args:
        kind: The command whose data it is.
        data: As a report's `to_json` makes it.
    """
    print_data({"schema": f"pprofpy.{kind}", "version": SCHEMA_VERSION, **data})


def latest() -> str:
    """The newest recording, which is named: it may be an older one than the user thinks, of another process."""
    path = latest_recording()
    with suppress(OSError):
        age_ns = max(0, time.time_ns() - path.lstat().st_mtime_ns)
        remark(f"the latest recording, {format_duration(age_ns)} old: {path}")
    return str(path)


def _load(options: dict[str, Any]) -> View:
    """Take the reading options out of a command's keywords and load what they ask for."""
    confinement.before_reading(options.get("output", ""))
    granularity = _pop_granularity(options)
    paths = options.pop("profiles")
    wanted = Filters(
        **{name: options.pop(name) for name in ("focus", "ignore", "show", "hide", "show_from")},
        tag_focus=options.pop("tagfocus"),
        tag_ignore=options.pop("tagignore"),
    )
    paths = paths or (latest(),)
    profile = load_profiles(paths, options.pop("base"), options.pop("diff_base"))
    sample_index, unit = options.pop("sample_index"), options.pop("unit")
    value_index = profile.value_index(sample_index)
    _check_unit(unit, profile.sample_types[value_index].unit)
    total = total_of(profile, value_index)
    profile, unmatched = filters.apply(profile, wanted)
    for option in unmatched:
        remark(f"pprofpy: --{option} matched no sample")
    return View(
        profile,
        tuple(paths),
        sample_index,
        value_index,
        total,
        unit,
        granularity,
        wanted,
        options.pop("as_json", False),
        options.pop("verbose", False),
    )


def _pop_granularity(options: dict[str, Any]) -> Granularity:
    chosen = [choice for choice in _GRANULARITIES if options.pop(choice, False)]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other", "choose one of them")
    return chosen[0] if chosen else Granularity.FUNCTIONS


def _check_unit(unit: str, profile_unit: str) -> None:
    """Refuse a unit that the profile's values do not convert to, rather than print them in another one."""
    if unit in (AUTO_UNIT, "auto") or not scale(1, profile_unit, AUTO_UNIT)[1]:
        return
    if scale(1, profile_unit, unit)[1] != scale(1, unit, unit)[1]:
        raise UsageError(
            f"{profile_unit} cannot be shown in {unit!r}", "units are ns us ms s hrs, and B kB MB GB TB PB"
        )
