"""Callers and callees: tree and peek."""

from __future__ import annotations

import pytest

from pprofpy.errors import PprofpyError, UsageError
from pprofpy.model.graph import build_graph
from pprofpy.model.profile import Profile
from pprofpy.reports import header, peek, tree
from pprofpy.reports.calls import Calls, Node
from pprofpy.reports.trim import EVERYTHING, Limits
from tests.looks import assert_looks, on_terminal, piped
from tests.stacks import profile_of

PROFILE = profile_of(
    {"main > serve > parse": 50, "main > serve > render > escape": 30, "main > check > parse": 15, "main > tiny": 1}
)


def tree_of(profile: Profile, limits: Limits = EVERYTHING) -> Calls:
    graph = build_graph(profile, 1)
    return tree.build(header.build(profile, 1, graph.total), graph, limits)


def peek_at(profile: Profile, pattern: str) -> Calls:
    graph = build_graph(profile, 1)
    return peek.build(header.build(profile, 1, graph.total), graph, pattern)


def neighbours(node: Node) -> tuple[dict[str, int], dict[str, int]]:
    """Callers and callees with their weight in samples."""
    callers, callees = (
        {str(call.entity): call.weight // 10_000_000 for call in calls} for calls in (node.callers, node.callees)
    )
    return callers, callees


def test_a_function_stands_between_its_callers_and_callees() -> None:
    (node,) = peek_at(PROFILE, "^parse$").nodes

    assert neighbours(node) == ({"serve": 50, "check": 15}, {})
    assert (node.flat, node.cum) == (650_000_000, 650_000_000)


def test_peek_shows_all_calls_however_small() -> None:
    (node,) = peek_at(PROFILE, "main").nodes

    assert neighbours(node) == ({}, {"serve": 80, "check": 15, "tiny": 1})


def test_tree_shows_every_function_costliest_first() -> None:
    assert [str(node.entity) for node in tree_of(PROFILE).nodes] == [
        "parse",
        "escape",
        "tiny",
        "check",
        "main",
        "render",
        "serve",
    ]


def test_tree_leaves_out_small_functions_and_small_calls() -> None:
    found = tree_of(PROFILE, Limits(0, 0.02, 0.2))

    calls = {str(node.entity): neighbours(node) for node in found.nodes}
    assert "tiny" not in calls
    assert calls["parse"] == ({"serve": 50}, {})
    assert found.summary[1:] == ["Dropped 1 node (cum <= 19.20ms)"]


def test_a_function_left_out_hands_its_calls_to_its_caller() -> None:
    found = tree_of(PROFILE, Limits(2, 0, 0))

    assert [neighbours(node) for node in found.nodes] == [({}, {}), ({}, {})]


def test_recursion_is_no_call_to_oneself() -> None:
    (fib,) = peek_at(profile_of({"main > fib > fib > fib": 4}), "fib").nodes

    assert neighbours(fib) == ({"main": 4}, {})


def test_no_match_names_what_is_near() -> None:
    with pytest.raises(PprofpyError, match="nothing in this profile matches 'prase'") as caught:
        peek_at(PROFILE, "prase")

    assert caught.value.exit_code == 1
    assert caught.value.hint == "nearest names: parse"


def test_no_match_and_nothing_near_names_the_costliest() -> None:
    with pytest.raises(PprofpyError) as caught:
        peek_at(PROFILE, "zzz")

    assert caught.value.hint == "the costliest are: parse, escape, tiny"


def test_a_qualified_name_is_found_by_its_last_part() -> None:
    with pytest.raises(PprofpyError) as caught:
        peek_at(profile_of({"app.views.Handler.do_get": 1}), "do_gte")

    assert caught.value.hint == "nearest names: app.views.Handler.do_get"


def test_a_bad_expression_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not a regular expression"):
        peek_at(PROFILE, "(")


def test_looks() -> None:
    assert_looks(piped(lambda console: tree.render(tree_of(PROFILE), console)), "tree.txt")
    assert_looks(piped(lambda console: peek.render(peek_at(PROFILE, "serve|render"), console)), "peek.serve_render.txt")
    assert_looks(
        on_terminal(lambda console: peek.render(peek_at(PROFILE, "parse"), console)), "peek.parse.terminal80.txt"
    )


def test_json_has_both_sides() -> None:
    (node,) = peek.to_json(peek_at(PROFILE, "check"))["nodes"]

    assert [call["name"] for call in node["callers"]] == ["main"]
    assert node["callees"] == [{"name": "parse", "filename": "", "line": 0, "weight": 150_000_000, "inlined": False}]
