"""Source code with the cost of each line: what `go tool pprof -list` prints.

A function's cum counts recursion once, as everywhere; `go tool pprof -list` prints the sum of the lines there.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.graph import Granularity, Graph, build_graph
from pprofpy.model.profile import Profile
from pprofpy.reports import header
from pprofpy.reports.header import Header
from pprofpy.reports.match import matching
from pprofpy.reports.source_finder import Source, SourceFinder
from pprofpy.reports.text import heat, write_lines
from pprofpy.units import NS_PER_S, format_percent, format_value

_CLOCKS_APART_NS = NS_PER_S // 10
"""The start of a process and the change of a file are known to some 10 ms."""

MODULE = "<module>"
"""What a module's own code is called: it begins at line 1, wherever its costs are."""

MARGIN_LINES = 5
"""How much is shown before the first and after the last line that has a value."""


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of source; `text` is None where the source is not there, `number` 0 where the profile has none."""

    number: int
    flat: int
    cum: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Routine:
    """A function with its lines.

    Attributes:
        name: The function.
        filename: Its file, as the profile has it.
        flat, cum: What it spent itself; what it and everything that it called spent.
        lines: By number.
        remarks: What the reader should know about the source: not found, found elsewhere, changed since.
    """

    name: str
    filename: str
    flat: int
    cum: int
    lines: list[SourceLine]
    remarks: list[str]


@dataclass(frozen=True, slots=True)
class Listing:
    """All matching functions, by name; values in the unit of the header's sample type, printed in `unit`."""

    header: Header
    routines: list[Routine]
    unit: str


def build(about: Header, profile: Profile, value_index: int, pattern: str, sources: SourceFinder, unit: str) -> Listing:
    """The source of all functions whose name matches a regular expression.

    Args:
        about: The profile's header.
        profile: The samples.
        value_index: Which of its sample types.
        pattern: The regular expression.
        sources: Finds the source files.
        unit: The unit to print in; "minimum" gives each value its own.

    Raises:
        PprofpyError: No function matches.
    """
    functions = build_graph(profile, value_index, Granularity.FILEFUNCTIONS, about.total)
    found = matching(pattern, (functions.entities[index].name for index in functions.order(by_cum=True)))
    lines = _costs_by_line(build_graph(profile, value_index, Granularity.LINES, about.total))
    begun = [one for one in profile.functions if one.start_line > 0 and one.system_name != MODULE]
    starts = {(one.name, posixpath.normpath(one.filename)): one.start_line for one in begun}
    routines = []
    for index in functions.touched().tolist():
        name, filename, _ = functions.entities[index]
        if name not in found:
            continue
        costs, start = lines[name, filename], starts.get((name, filename), 0)
        source = sources.find(filename) if filename else None
        remarks = _remarks(source, filename, about, costs)
        bare = name.removesuffix(f":{start}")  # see with_names_told_apart
        if source and _may_be_newer(source, about) and source.lacks(bare, min(costs), max(costs)):
            remarks = ["warning: the file was changed, and this function is at other lines now: they are not shown"]
            source = None
        shown = _lines_of(source, costs, start) if source else [SourceLine(n, *costs[n], None) for n in sorted(costs)]
        flat, cum = int(functions.flat[index]), int(functions.cum[index])
        routines.append(Routine(name, filename, flat, cum, shown, remarks))
    return Listing(about, sorted(routines, key=lambda routine: (routine.name, routine.filename)), unit)


def render(listing: Listing, console: Console) -> None:
    """Print each function with its source."""
    total, unit = listing.header.total, listing.header.sample_type.unit
    losses = header.losses(listing.header.collection, verbose=listing.header.verbose)
    write_lines(console, [*losses, f"Total: {format_value(total, unit, listing.unit)}"])
    for routine in listing.routines:
        flat, cum = (format_value(value, unit, listing.unit) for value in (routine.flat, routine.cum))
        place = f" in {routine.filename}" if routine.filename else ""
        title = f"ROUTINE ======================== {routine.name}{place}"
        share = f"{flat:>10} {cum:>10} (flat, cum) {format_percent(routine.cum, total)} of Total"
        remarks = [Text(f" {remark}", "yellow") for remark in routine.remarks]
        write_lines(console, [Text(title, "bold"), share, *remarks, *(_text(line, listing) for line in routine.lines)])


def to_json(listing: Listing) -> dict[str, Any]:
    """The listing for programs."""
    return {
        **header.to_json(listing.header),
        "routines": [
            {
                "name": routine.name,
                "filename": routine.filename,
                "flat": routine.flat,
                "cum": routine.cum,
                "remarks": routine.remarks,
                "lines": [
                    {"line": line.number, "flat": line.flat, "cum": line.cum, "text": line.text}
                    for line in routine.lines
                ],
            }
            for routine in listing.routines
        ],
    }


def _costs_by_line(graph: Graph) -> dict[tuple[str, str], dict[int, tuple[int, int]]]:
    """For each function and file: line -> (flat, cum)."""
    costs: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
    for index in graph.touched().tolist():
        name, filename, line = graph.entities[index]
        costs.setdefault((name, filename), {})[line] = int(graph.flat[index]), int(graph.cum[index])
    return costs


def _lines_of(source: Source, costs: dict[int, tuple[int, int]], start: int) -> list[SourceLine]:
    """The source of a function, from its beginning to a little after its last costly line."""
    first, last = _bounds(source, costs, start)
    numbers = sorted({*range(first, last + 1), *costs})
    return [
        SourceLine(n, *costs.get(n, (0, 0)), source.lines[n - 1] if 0 < n <= len(source.lines) else None)
        for n in numbers
    ]


def _bounds(source: Source, costs: dict[int, tuple[int, int]], start: int) -> tuple[int, int]:
    """First and last line to show.

    The profile says where the function begins, or else its source does; failing both, some lines around the costs.
    """
    lowest, highest = min(costs), max(costs)
    end, around = highest + MARGIN_LINES, source.function_around(lowest, highest)
    if not 0 < start <= lowest:
        start = around[0] if around else lowest - MARGIN_LINES
    if around:
        end = min(end, around[1])
    return max(start, 1), min(end, len(source.lines))


def _remarks(source: Source | None, filename: str, about: Header, costs: dict[int, tuple[int, int]]) -> list[str]:
    if not filename:
        return ["the profile does not name the file"]
    if source is None:
        return ["source not found: give its folder with --source-path, and a prefix to strip with --trim-path"]
    remarks = [] if str(source.path) == filename else [f"source: {source.path}"]
    if about.time_ns and source.mtime_ns > about.time_ns:
        remarks.append("warning: the file was changed after the recording began; lines may not match")
    elif _may_be_newer(source, about):
        remarks.append("warning: the file was changed after the process had started; lines may not match")
    elif max(costs) > len(source.lines):
        remarks.append("warning: the file is shorter than the profile says; it is not the one that was running")
    return remarks


def _may_be_newer(source: Source, about: Header) -> bool:
    """Was it changed too late for the process to have loaded it so? Not told where the profile knows no time."""
    started_ns = about.collection.started_ns
    loaded_ns = started_ns + _CLOCKS_APART_NS if started_ns > 0 else about.time_ns
    return source.mtime_ns > loaded_ns > 0


def _text(line: SourceLine, listing: Listing) -> Text:
    unit = listing.header.sample_type.unit
    flat, cum = (format_value(value, unit, listing.unit) if value else "." for value in (line.flat, line.cum))
    text = line.text.expandtabs() if line.text is not None else ""
    style = heat(line.cum, listing.header.total) if line.flat or line.cum else "dim"
    return Text.assemble((f"{flat:>10} {cum:>10}", style), f" {line.number:>6}:{text}")
