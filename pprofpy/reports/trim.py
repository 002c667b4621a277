"""Drop small entities and calls by the rules of `go tool pprof`, and report how much was dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pprofpy.errors import UsageError
from pprofpy.model.graph import Edges, Graph
from pprofpy.units import common_unit, format_percent, format_value

AUTO_UNIT = "minimum"
"""As a unit: let the report choose the one in which its numbers read best."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a report may leave out.

    Attributes:
        node_count: Show at most this many entities (0: all).
        node_fraction: Entities with less than this share of everything in cum go.
        edge_fraction: Calls that carry less than this share go.
    """

    node_count: int = 0
    node_fraction: float = 0.005
    edge_fraction: float = 0.001

    def __post_init__(self) -> None:
        for name, fraction in (("nodefraction", self.node_fraction), ("edgefraction", self.edge_fraction)):
            if not 0 <= fraction <= 1:
                raise UsageError(f"--{name} {fraction} is not a share", "give a number from 0 to 1, such as 0.005")


EVERYTHING = Limits(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A graph with only the entities worth showing.

    Attributes:
        graph: What is left.
        order: Its entities as a table lists them.
        candidates: How many entities were large enough.
        dropped: How many were too small.
        limits: What was allowed.
        edge_cutoff: Calls that carry less than this are not shown.
    """

    graph: Graph
    order: list[int]
    candidates: int
    dropped: int
    limits: Limits
    edge_cutoff: int

    @property
    def shown(self) -> int:
        """Return the sum of flat of the entities shown."""
        return int(self.graph.flat[self.order].sum())

    def edges(self) -> Edges:
        """Return the calls between the entities shown, without the small ones."""
        return self.graph.edges().heavier_than(self.edge_cutoff)

    def unit(self, wanted: str = AUTO_UNIT) -> str:
        """The unit to print all values in: `wanted`, or the one that suits the entities shown."""
        if wanted != AUTO_UNIT or not self.order:
            return wanted
        flat, cum = self.graph.flat[self.order], self.graph.cum[self.order]
        return common_unit(np.where(flat != 0, flat, cum).tolist(), self.graph.total, self.graph.unit)

    def summary(self, unit: str) -> list[str]:
        """What is shown and what is not, in the words of `go tool pprof`."""
        total, profile_unit = self.graph.total, self.graph.unit
        shown = format_value(self.shown, profile_unit, unit)
        share = format_percent(self.shown, total).strip()
        lines = [f"Showing nodes accounting for {shown}, {share} of {format_value(total, profile_unit, unit)} total"]
        if total and self.dropped:
            cutoff = format_value(_cutoff(total, self.limits.node_fraction), profile_unit, unit)
            lines.append(f"Dropped {self.dropped} node{'s' * (self.dropped > 1)} (cum <= {cutoff})")
        if total and 0 < len(self.order) < self.candidates:
            lines.append(f"Showing top {len(self.order)} nodes out of {self.candidates}")
        return lines


def trim(graph: Graph, limits: Limits, *, by_cum: bool = False, ties_by_name: bool = True) -> Trimmed:
    """Drop small entities, then all but the first `limits.node_count` in `Graph.order`.

    Entities in which a difference cancels out are never listed; those that they call still have them as callers, unless
    something is dropped, as in `go tool pprof`.
    """
    whole = int(graph.flat.sum())
    node_cutoff, edge_cutoff = _cutoff(whole, limits.node_fraction), _cutoff(whole, limits.edge_fraction)
    touched = graph.touched()
    small = np.abs(graph.cum) < node_cutoff
    if small[touched].any():
        graph = graph.without(small)
    order = graph.order(by_cum=by_cum, ties_by_name=ties_by_name)
    candidates = len(order)
    if 0 < limits.node_count < candidates:
        order = order[: limits.node_count]
        outside = np.ones(len(graph.entities), np.bool_)
        outside[order] = False
        graph = graph.without(outside)
    return Trimmed(graph, order, candidates, len(touched) - candidates, limits, edge_cutoff)


def _cutoff(total: int, fraction: float) -> int:
    return abs(int(float(total) * fraction))
