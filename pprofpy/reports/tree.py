"""Every function worth showing, between its callers and its callees: what `go tool pprof -tree` prints."""

from __future__ import annotations

from pprofpy.model.graph import Graph
from pprofpy.reports import calls
from pprofpy.reports.calls import Calls
from pprofpy.reports.header import Header
from pprofpy.reports.trim import AUTO_UNIT, Limits, trim

DEFAULT_NODE_COUNT = 80
STANDARD = Limits(DEFAULT_NODE_COUNT)

render = calls.render
to_json = calls.to_json


def build(
    about: Header, graph: Graph, limits: Limits = STANDARD, *, by_cum: bool = False, unit: str = AUTO_UNIT
) -> Calls:
    """All entities that the limits leave, with the calls between them."""
    trimmed = trim(graph, limits, by_cum=by_cum)
    return calls.build(about, trimmed, trimmed.order, unit)
