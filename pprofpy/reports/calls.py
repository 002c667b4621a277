"""The table of callers and callees that `tree` shows for all functions and `peek` for some.

Each function stands between those that called it (above) and those that it called (below).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.graph import Edges, Entity
from pprofpy.reports import header
from pprofpy.reports.header import Header
from pprofpy.reports.text import flat_and_cum, name_width, shorten, write_lines
from pprofpy.reports.trim import Trimmed
from pprofpy.units import format_percent, format_value

_SEPARATOR = "-" * 58 + "+" + "-" * 13
_LEGEND = "      flat  flat%   sum%        cum   cum%   calls calls% + context"


@dataclass(frozen=True, slots=True)
class Call:
    """A caller or a callee, and what was spent below the calls between the two."""

    entity: Entity
    weight: int
    inlined: bool


@dataclass(frozen=True, slots=True)
class Node:
    """A function between its callers and its callees, heaviest first.

    Attributes:
        entity: The function (or line, or file).
        flat: What it spent itself.
        flat_sum: The same, for this node and all above it.
        cum: What it and everything that it called spent.
        callers, callees: Who called it, whom it called.
    """

    entity: Entity
    flat: int
    flat_sum: int
    cum: int
    callers: list[Call]
    callees: list[Call]


@dataclass(frozen=True, slots=True)
class Calls:
    """The table; values in the unit of the header's sample type, printed in `unit`."""

    header: Header
    summary: list[str]
    nodes: list[Node]
    unit: str


def build(about: Header, trimmed: Trimmed, chosen: Iterable[int], unit: str) -> Calls:
    """Put the `chosen` entities of a trimmed graph between their neighbours.

    Args:
        about: The profile's header.
        trimmed: Flat, cum and edges.
        chosen: The entities to list, in order.
        unit: The unit to print in, or "minimum" to let the table choose.
    """
    graph, indices = trimmed.graph, list(chosen)
    callers, callees = _neighbours(trimmed.edges(), graph.entities, set(indices))
    flat = graph.flat[indices].tolist()
    nodes = [
        Node(graph.entities[index], own, running, int(graph.cum[index]), callers[index], callees[index])
        for index, own, running in zip(indices, flat, accumulate(flat), strict=True)
    ]
    unit = trimmed.unit(unit)
    return Calls(about, trimmed.summary(unit), nodes, unit)


def render(calls: Calls, console: Console) -> None:
    """Print the table."""
    write_lines(console, [*header.lines(calls.header, calls.unit), *calls.summary, _SEPARATOR, Text(_LEGEND, "bold")])
    width = name_width(console, len(_SEPARATOR) - 9)
    for node in calls.nodes:
        write_lines(console, [_SEPARATOR, *_lines(node, calls, width)])
    if calls.nodes:
        write_lines(console, [_SEPARATOR])


def to_json(calls: Calls) -> dict[str, Any]:
    """Return the table as data for JSON."""
    return {
        **header.to_json(calls.header),
        "nodes": [
            {
                **node.entity._asdict(),
                "flat": node.flat,
                "cum": node.cum,
                "callers": [_call_json(call) for call in node.callers],
                "callees": [_call_json(call) for call in node.callees],
            }
            for node in calls.nodes
        ],
    }


def _call_json(call: Call) -> dict[str, Any]:
    return {**call.entity._asdict(), "weight": call.weight, "inlined": call.inlined}


def _neighbours(
    edges: Edges, entities: list[Entity], wanted: set[int]
) -> tuple[dict[int, list[Call]], dict[int, list[Call]]]:
    """Callers and callees of the wanted entities, heaviest first, ties by name."""
    callers: dict[int, list[Call]] = {index: [] for index in wanted}
    callees: dict[int, list[Call]] = {index: [] for index in wanted}
    rows = zip(
        edges.callers.tolist(), edges.callees.tolist(), edges.weights.tolist(), edges.inlined.tolist(), strict=True
    )
    for caller, callee, weight, inlined in rows:
        if callee in wanted:
            callers[callee].append(Call(entities[caller], weight, inlined))
        if caller in wanted:
            callees[caller].append(Call(entities[callee], weight, inlined))
    for calls in (*callers.values(), *callees.values()):
        calls.sort(key=lambda call: (-abs(call.weight), str(call.entity)))
    return callers, callees


def _lines(node: Node, calls: Calls, width: int) -> Iterator[Text]:
    yield from (_call_line(call, node, calls, width) for call in node.callers)
    total, unit = calls.header.total, calls.header.sample_type.unit
    yield Text.assemble(
        *flat_and_cum(node, total, lambda value: format_value(value, unit, calls.unit)),
        f"{'':16}| ",
        (shorten(str(node.entity), width), "bold"),
    )
    yield from (_call_line(call, node, calls, width) for call in node.callees)


def _call_line(call: Call, node: Node, calls: Calls, width: int) -> Text:
    value = format_value(call.weight, calls.header.sample_type.unit, calls.unit)
    mark = " (inline)" if call.inlined else ""
    name = shorten(str(call.entity), width - 2 - len(mark))
    return Text(f"{value:>50} {format_percent(call.weight, node.cum)} |   {name}{mark}")
