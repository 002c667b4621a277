"""All stacks, costliest first, with their values and labels: what `go tool pprof -traces` prints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from pprofpy.model.graph import Entity, Graph
from pprofpy.model.profile import Label, LabelSet, Profile
from pprofpy.reports import header
from pprofpy.reports.header import Header
from pprofpy.reports.text import shorten, write_lines
from pprofpy.units import format_value

_SEPARATOR = "-" * 11 + "+" + "-" * 55
_NAME_AT = 13
_KEYS_IN_BYTES = frozenset({"request", "alignment"})
"""Numeric labels without a unit that mean bytes; others are their own unit (as profile.proto has it)."""


@dataclass(frozen=True, slots=True)
class StackTrace:
    """A stack that was sampled.

    Attributes:
        value: What was spent on it.
        labels: What else is known of these samples.
        stack: Leaf-first.
        inlined: One per entry of `stack`: was it inlined into the next?
    """

    value: int
    labels: LabelSet
    stack: tuple[Entity, ...]
    inlined: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Traces:
    """All traces; values in the unit of the header's sample type, printed in `unit`."""

    header: Header
    traces: list[StackTrace]
    unit: str


def build(about: Header, profile: Profile, value_index: int, graph: Graph, unit: str) -> Traces:
    """Every sample that has a stack, costliest first.

    Args:
        about: The profile's header.
        profile: The samples.
        value_index: Which of its sample types.
        graph: Built from just this profile; it says what an entry of a stack is.
        unit: The unit to print in; "minimum" gives each value its own.
    """
    values = profile.values[:, value_index]
    stacks: dict[int, tuple[tuple[Entity, ...], tuple[bool, ...]]] = {}

    def stack_of(index: int) -> tuple[tuple[Entity, ...], tuple[bool, ...]]:
        if index not in stacks:
            inlined = graph.inlined[graph.rows.offsets[index] : graph.rows.offsets[index + 1]]
            stacks[index] = tuple(graph.entities[i] for i in graph.rows[index]), tuple(inlined.tolist())
        return stacks[index]

    rows = np.argsort(-np.abs(values), kind="stable")
    columns = zip(
        values[rows].tolist(), profile.sample_labels[rows].tolist(), profile.sample_stacks[rows].tolist(), strict=True
    )
    found = [StackTrace(value, profile.label_sets[labels], *stack_of(stack)) for value, labels, stack in columns]
    return Traces(about, [trace for trace in found if trace.stack], unit)


def render(traces: Traces, console: Console) -> None:
    """Print every trace, its labels first."""
    write_lines(console, header.lines(traces.header, traces.unit))
    names: dict[Entity, str] = {}
    lines = (line for trace in traces.traces for line in _lines(trace, traces, names))
    if console.is_terminal:
        lines = (f"{line[:_NAME_AT]}{shorten(line[_NAME_AT:], console.width - _NAME_AT)}" for line in lines)
    write_lines(console, lines)
    write_lines(console, [_SEPARATOR])


def to_json(traces: Traces) -> dict[str, Any]:
    """Return the traces as data for JSON."""
    return {
        **header.to_json(traces.header),
        "traces": [
            {
                "value": trace.value,
                "labels": [label._asdict() for label in trace.labels],
                "stack": [
                    {**entity._asdict(), "inlined": inlined}
                    for entity, inlined in zip(trace.stack, trace.inlined, strict=True)
                ],
            }
            for trace in traces.traces
        ],
    }


def _lines(trace: StackTrace, traces: Traces, names: dict[Entity, str]) -> Iterator[str]:
    """A trace as text; `names` remembers how entities are printed, since each occurs in many stacks."""
    yield _SEPARATOR
    yield from _label_lines(trace.labels)
    value = format_value(trace.value, traces.header.sample_type.unit, traces.unit)
    for entity, inlined in zip(trace.stack, trace.inlined, strict=True):
        name = names.get(entity) or names.setdefault(entity, str(entity))
        yield f"{value:>10}   {name}{' (inline)' if inlined else ''}"
        value = ""


def _label_lines(labels: LabelSet) -> Iterator[str]:
    """One line for each key, texts before numbers, several values of a key together."""
    for texts in (True, False):
        by_key: dict[str, list[str]] = {}
        for label in labels:
            if isinstance(label.value, str) is texts:
                by_key.setdefault(label.key, []).append(_label_value(label))
        yield from sorted(f"{key:>10}:  {' '.join(values)}" for key, values in by_key.items())


def _label_value(label: Label) -> str:
    if isinstance(label.value, str):
        return label.value
    return format_value(label.value, label.unit or ("bytes" if label.key in _KEYS_IN_BYTES else label.key))
