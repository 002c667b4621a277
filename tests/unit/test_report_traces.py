"""Single stacks with values and labels."""

from __future__ import annotations

from pprofpy.model.graph import build_graph
from pprofpy.model.profile import Label, LabelSet
from pprofpy.reports import header, traces
from pprofpy.reports.traces import Traces
from tests.looks import assert_looks, piped
from tests.stacks import profile_of

STACKS: dict[tuple[str, LabelSet], int] = {
    ("main > idle", ()): 2,
    ("main > work", (Label("thread", "T\x1b1"), Label("tid", 42))): 9,
    ("main > work", (Label("bytes", 4096, "bytes"), Label("alignment", 2048), Label("thread", "T2"))): 5,
    ("", ()): 1,
}


def found() -> Traces:
    profile = profile_of(STACKS)
    graph = build_graph(profile, 1)
    return traces.build(header.build(profile, 1, graph.total), profile, 1, graph, "minimum")


def test_the_costliest_stack_comes_first_and_stacks_without_frames_are_left_out() -> None:
    assert [(trace.value // 10_000_000, [str(e) for e in trace.stack]) for trace in found().traces] == [
        (9, ["work", "main"]),
        (5, ["work", "main"]),
        (2, ["idle", "main"]),
    ]


def test_looks() -> None:
    assert_looks(piped(lambda console: traces.render(found(), console)), "traces.txt")


def test_json_keeps_names_as_they_are() -> None:
    first = traces.to_json(found())["traces"][0]

    assert first["labels"][0] == {"key": "thread", "value": "T\x1b1", "unit": ""}
    assert [frame["name"] for frame in first["stack"]] == ["work", "main"]
