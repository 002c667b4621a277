"""Some functions between all of their callers and callees, however small: what `go tool pprof -peek` prints."""

from __future__ import annotations

from pprofpy.model.graph import Graph
from pprofpy.reports import calls
from pprofpy.reports.calls import Calls
from pprofpy.reports.header import Header
from pprofpy.reports.match import matching
from pprofpy.reports.trim import AUTO_UNIT, EVERYTHING, trim

render = calls.render
to_json = calls.to_json


def build(about: Header, graph: Graph, pattern: str, *, by_cum: bool = False, unit: str = AUTO_UNIT) -> Calls:
    """The entities whose name matches a regular expression, with all calls from and to them.

    Raises:
        PprofpyError: None matches.
    """
    trimmed = trim(graph, EVERYTHING, by_cum=by_cum)
    names = {index: str(graph.entities[index]) for index in trimmed.order}
    found = matching(pattern, names.values())
    return calls.build(about, trimmed, [index for index, name in names.items() if name in found], unit)
