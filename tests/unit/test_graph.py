"""Flat, cum, edges and call trees: the arithmetic under every view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pprofpy.model.combine import merge
from pprofpy.model.graph import (
    BASE_LABEL,
    CallTree,
    Entity,
    Granularity,
    Graph,
    build_call_tree,
    build_graph,
    total_of,
)
from pprofpy.model.profile import Function, Label, Line, Location, Mapping, Profile
from pprofpy.model.stack_table import Stacks
from tests.stacks import profile_of

PROFILE = profile_of({"main > work > inner": 3, "main > work": 5, "main > other": 2})


def graph_of(profile: Profile, granularity: Granularity = Granularity.FUNCTIONS) -> Graph:
    return build_graph(profile, 0, granularity)


def costs(graph: Graph) -> dict[str, tuple[int, int]]:
    """Entity -> (flat, cum), in the order of a table."""
    return {str(graph.entities[i]): (int(graph.flat[i]), int(graph.cum[i])) for i in graph.order()}


def edges(graph: Graph) -> dict[tuple[str, str], int]:
    found = graph.edges()
    return {
        (str(graph.entities[caller]), str(graph.entities[callee])): int(weight)
        for caller, callee, weight in zip(found.callers, found.callees, found.weights, strict=True)
    }


def test_flat_is_what_a_function_spent_itself_and_cum_includes_its_callees() -> None:
    graph = graph_of(PROFILE)

    assert costs(graph) == {"work": (5, 8), "inner": (3, 3), "other": (2, 2), "main": (0, 10)}
    assert graph.total == 10


def test_sorting_by_cum_puts_the_outermost_first() -> None:
    graph = graph_of(PROFILE)

    assert [graph.entities[i].name for i in graph.order(by_cum=True)] == ["main", "work", "inner", "other"]


def test_ties_are_broken_by_name() -> None:
    assert list(costs(graph_of(profile_of({"b": 1, "a": 1, "c": 1})))) == ["a", "b", "c"]


def test_recursion_counts_once_for_each_stack() -> None:
    graph = graph_of(profile_of({"main > fib > fib > fib": 4}))

    assert costs(graph) == {"fib": (4, 4), "main": (0, 4)}
    assert edges(graph) == {("main", "fib"): 4}


def test_an_edge_that_occurs_twice_in_a_stack_counts_once() -> None:
    graph = graph_of(profile_of({"even > odd > even > odd": 4, "even > odd": 1}))

    assert edges(graph) == {("even", "odd"): 5, ("odd", "even"): 4}


def test_edges_carry_what_was_spent_below_the_call() -> None:
    assert edges(graph_of(PROFILE)) == {("main", "work"): 8, ("main", "other"): 2, ("work", "inner"): 3}


def test_a_removed_function_hands_its_calls_to_its_callers_but_not_its_own_time() -> None:
    graph = graph_of(PROFILE)

    rest = graph.without(np.array([entity.name == "work" for entity in graph.entities]))

    assert costs(rest) == {"inner": (3, 3), "other": (2, 2), "main": (0, 10)}
    assert edges(rest) == {("main", "inner"): 3, ("main", "other"): 2}


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [
        (Granularity.FUNCTIONS, {"work": (3, 3)}),
        (Granularity.FILEFUNCTIONS, {"work /srv/work.py": (3, 3)}),
        (Granularity.LINES, {"work /srv/work.py:8": (2, 2), "work /srv/work.py:7": (1, 1)}),
        (Granularity.FILES, {"/srv/work.py": (3, 3)}),
    ],
)
def test_the_granularity_decides_what_a_row_is(granularity: Granularity, expected: dict[str, tuple[int, int]]) -> None:
    assert costs(graph_of(profile_of({"work:7": 1, "work:8": 2}), granularity)) == expected


def test_functions_of_one_name_in_two_files_are_told_apart_only_with_files() -> None:
    profile = profile_of({"run": 1, "go": 2})
    profile.functions = [Function("run", "", "/srv/./a.py"), Function("run", "", "/srv/x/../b.py")]

    assert costs(graph_of(profile)) == {"run": (3, 3)}
    assert set(graph_of(profile, Granularity.FILEFUNCTIONS).entities) == {
        Entity("run", "/srv/a.py"),
        Entity("run", "/srv/b.py"),
    }


def test_inlined_frames_are_callees_marked_as_inlined() -> None:
    profile = profile_of({"main": 4, "leaf": 0})
    leaf, main = (next(i for i, f in enumerate(profile.functions) if f.name == name) for name in ("leaf", "main"))
    profile = replace(profile, locations=[Location((Line(leaf), Line(main)))] * 2)

    graph = graph_of(profile)

    assert costs(graph) == {"leaf": (4, 4), "main": (0, 4)}
    assert edges(graph) == {("main", "leaf"): 4}
    assert graph.edges().inlined.tolist() == [True]


def test_addresses_without_names_are_summed_by_module() -> None:
    profile = replace(
        profile_of({"a": 1, "b": 2}),
        mappings=[Mapping("/usr/lib/libc.so.6")],
        locations=[Location((), 0, 0x10), Location((), 0, 0x20)],
    )

    assert costs(graph_of(profile)) == {"[libc.so.6]": (3, 3)}


def test_an_empty_stack_counts_in_the_total_only() -> None:
    graph = graph_of(profile_of({"": 5, "a": 1}))

    assert costs(graph) == {"a": (1, 1)}
    assert graph.total == 6


def test_an_empty_profile_has_an_empty_graph() -> None:
    graph = graph_of(profile_of({}))

    assert costs(graph) == {}
    assert edges(graph) == {}
    assert len(build_call_tree(graph)) == 1


class TestDifferences:
    """Profiles with something subtracted."""

    before = profile_of({"main > work": 10, "main > gone": 4})
    after = profile_of({"main > work": 25})

    def test_what_shrank_is_negative_and_sorts_by_size(self) -> None:
        difference = merge([self.after, self.before.scale([-1, -1])])

        assert costs(graph_of(difference)) == {"work": (15, 15), "gone": (-4, -4), "main": (0, 11)}
        assert total_of(difference, 0) == 19

    def test_against_a_marked_base_shares_are_of_the_base(self) -> None:
        base = replace(self.before, label_sets=[(Label(BASE_LABEL, "true"),)]).scale([-1, -1])

        assert total_of(merge([self.after, base]), 0) == 14


class TestCallTree:
    """All stacks folded into one tree."""

    def paths(self, tree: CallTree) -> dict[str, tuple[int, int]]:
        names = [""] * len(tree)
        for node in range(1, len(tree)):
            names[node] = f"{names[tree.parent[node]]}/{tree.entities[tree.entity[node]].name}"
        return {names[node]: (int(tree.own[node]), int(tree.total[node])) for node in range(len(tree))}

    def test_each_path_has_its_own_node(self) -> None:
        tree = build_call_tree(graph_of(profile_of({"a > x": 1, "b > x": 2, "a": 4})))

        assert self.paths(tree) == {"": (0, 7), "/a": (4, 5), "/b": (0, 2), "/a/x": (1, 1), "/b/x": (2, 2)}

    def test_recursion_makes_the_tree_deeper(self) -> None:
        tree = build_call_tree(graph_of(profile_of({"f > f > f": 1, "f": 1})))

        assert self.paths(tree) == {"": (0, 2), "/f": (1, 2), "/f/f": (0, 1), "/f/f/f": (1, 1)}

    def test_children_lie_next_to_each_other(self) -> None:
        tree = build_call_tree(graph_of(PROFILE))

        for node in range(len(tree)):
            assert all(tree.parent[child] == node for child in tree.children(node))
        assert sum(len(tree.children(node)) for node in range(len(tree))) == len(tree) - 1

    def test_a_very_deep_stack_is_no_problem(self) -> None:
        profile = profile_of({"f": 1})
        deep = replace(profile, stacks=Stacks.of([[0] * 50_000]))

        assert len(build_call_tree(graph_of(deep))) == 50_001
