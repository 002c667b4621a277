"""The top table: its rows, what it leaves out, how it looks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pprofpy.errors import UsageError
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.graph import Granularity, build_graph
from pprofpy.model.profile import Collection, Function, Line, Location, Profile
from pprofpy.reports import costs as recorded_costs
from pprofpy.reports import header, top
from pprofpy.reports.top import Top
from pprofpy.reports.trim import EVERYTHING, Limits
from tests.looks import assert_looks, on_terminal, piped
from tests.stacks import CPU_TYPES, PERIOD_NS, profile_of

SERVICE = replace(
    profile_of(
        {
            "main > serve > parse": 500,
            "main > serve > parse > decode": 250,
            "main > serve > render > escape": 200,
            "main > serve > a_function_with_a_name_that_no_terminal_has_room_for.[locals].wrapper": 40,
            "main > serve > log": 7,
            "main > idle": 3,
            "\x1b[31mred\nname": 5,
        }
    ),
    duration_ns=20_000_000_000,
    collection=Collection("py-spy 0.4.1", "pid 42 (service.py)", asked=1010, got=1005, late=5, errors=0),
)


def table(profile: Profile, limits: Limits = EVERYTHING, *, by_cum: bool = False, unit: str = "minimum") -> Top:
    graph = build_graph(profile, 1)
    return top.build(header.build(profile, 1, graph.total), graph, limits, by_cum=by_cum, unit=unit)


def costs(found: Top) -> list[tuple[str, int, int, int]]:
    """Name, flat, sum and cum in samples."""
    return [
        (str(row.entity), row.flat // PERIOD_NS, row.flat_sum // PERIOD_NS, row.cum // PERIOD_NS) for row in found.rows
    ]


def test_the_costliest_comes_first_and_sum_adds_up() -> None:
    found = table(profile_of({"main > work": 6, "main > work > inner": 3, "main": 1}))

    assert costs(found) == [("work", 6, 6, 9), ("inner", 3, 9, 3), ("main", 1, 10, 10)]
    assert found.summary == ["Showing nodes accounting for 100ms, 100% of 100ms total"]


def test_sorted_by_cum_the_outermost_comes_first() -> None:
    found = table(profile_of({"main > work": 6, "main > work > inner": 3}), by_cum=True)

    assert [row.entity.name for row in found.rows] == ["main", "work", "inner"]


def test_small_functions_are_dropped_and_counted() -> None:
    found = table(profile_of({"main > big": 997, "main > small": 2, "main > tiny": 1}), Limits(0, 0.0025))

    assert [row.entity.name for row in found.rows] == ["big", "main"]
    assert found.summary == [
        "Showing nodes accounting for 9.97s, 99.70% of 10s total",
        "Dropped 2 nodes (cum <= 0.03s)",
    ]


def test_a_row_limit_hides_rows_and_counts_them() -> None:
    found = table(profile_of({"a": 4, "b": 3, "c": 2}), Limits(2))

    assert [row.entity.name for row in found.rows] == ["a", "b"]
    assert found.hidden == 1
    assert found.summary[-1] == "Showing top 2 nodes out of 3"


def test_inlined_functions_are_marked() -> None:
    profile = profile_of({"main > leaf": 4, "main > other": 4})
    index = {function.name: i for i, function in enumerate(profile.functions)}
    inlined = Location((Line(index["leaf"]), Line(index["main"])))
    called, caller = Location((Line(index["leaf"]),)), Location((Line(index["other"]),))

    everywhere = replace(profile, locations=[inlined, inlined, caller])
    somewhere = replace(profile, locations=[called, caller, inlined])

    assert {row.entity.name: row.inline for row in table(everywhere).rows}["leaf"] == "inline"
    assert {row.entity.name: row.inline for row in table(somewhere).rows}["leaf"] == "partial-inline"
    assert {row.entity.name: row.inline for row in table(profile).rows} == {"leaf": "", "other": "", "main": ""}


def test_inlined_into_what_cancels_out_is_marked_still() -> None:
    """As in `go tool pprof`: `burn` is not listed, but `leaf` was inlined into it."""
    builder = ProfileBuilder(CPU_TYPES)
    burn, leaf, other = (builder.function(Function(name)) for name in ("burn", "leaf", "other"))
    inlined = builder.location(Location((Line(leaf), Line(burn))))
    outer, beside = (builder.location(Location((Line(function),))) for function in (burn, other))
    for stack, count in (((inlined,), 30), ((beside, outer), -30), ((beside,), 500)):
        builder.add_locations(stack, (count, count))

    rows = table(builder.build(), Limits()).rows

    assert [(row.entity.name, row.cum, row.inline) for row in rows] == [("other", 470, ""), ("leaf", 30, "inline")]


def test_the_unit_may_be_chosen() -> None:
    assert "9970ms" in table(profile_of({"a": 997}), unit="ms").summary[0]


def test_an_empty_profile_has_no_table() -> None:
    found = table(profile_of({}))

    assert found.rows == []
    assert found.summary == ["Showing nodes accounting for 0, 0% of 0 total"]
    assert piped(lambda console: top.render(found, console)).endswith("There is no sample in it.\n")


def test_rows_that_are_all_dropped_are_no_empty_profile() -> None:
    found = table(profile_of({"a": 1, "b": 1}), limits=Limits(0, 0.9))

    assert found.rows == []
    assert piped(lambda console: top.render(found, console)).endswith("cum%\n")


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_0_and_1(fraction: float) -> None:
    with pytest.raises(UsageError, match="not a share"):
        Limits(0, fraction)


def test_json_has_exact_numbers() -> None:
    data = top.to_json(table(profile_of({"main > work": 6})))

    assert (data["total"], data["unit"], data["hidden_rows"]) == (60_000_000, "nanoseconds", 0)
    assert data["rows"][0] == {
        "name": "work",
        "filename": "",
        "line": 0,
        "flat": 60_000_000,
        "flat_sum": 60_000_000,
        "cum": 60_000_000,
        "inline": "",
    }


class TestLooks:
    """The same table for a pipe, a terminal and a narrow terminal."""

    def test_piped_it_is_plain_and_complete(self) -> None:
        assert_looks(piped(lambda console: top.render(table(SERVICE), console)), "top.txt")

    def test_with_a_limit_it_says_how_to_see_more(self) -> None:
        found = table(SERVICE, Limits(2))

        assert_looks(piped(lambda console: top.render(found, console)), "top.-n2.txt")

    def test_by_lines(self) -> None:
        graph = build_graph(SERVICE, 1, Granularity.LINES)
        found = top.build(header.build(SERVICE, 1, graph.total), graph)

        assert_looks(piped(lambda console: top.render(found, console)), "top.--lines.txt")

    def test_on_a_terminal_names_are_cut_to_fit_and_heat_is_coloured(self) -> None:
        assert_looks(on_terminal(lambda console: top.render(table(SERVICE), console), 80), "top.terminal80.txt")

    @pytest.mark.parametrize("width", [1, 20, 45])
    def test_on_a_tiny_terminal_the_beginning_and_end_of_names_remain(self, width: int) -> None:
        text = on_terminal(lambda console: top.render(table(SERVICE), console), width)

        assert "serve" in text
        assert "a_functi…wrapper" in text


# -- the table of recording commands ---------------------------------------------------------------------------------


def recorded(nodecount: int = 0, *, verbose: bool = False) -> str:
    profile = profile_of({"main > serve > parse": 300, "main > idle": 20, "main > alone > z": 9, "main > tiny": 1})
    collection = Collection("eBPF", "shop", asked=300, got=330, late=0)
    profile = replace(profile, duration_ns=4 * 10**9, collection=collection)
    graph = build_graph(profile, 1)
    about = header.build(profile, 1, profile.total(1), verbose=verbose)
    shown = top.build(about, graph, Limits(nodecount), ties_by_name=False)
    return piped(lambda console: recorded_costs.render(shown, console))


def test_of_equal_rows_the_one_that_contains_most_comes_first_in_a_recording() -> None:
    names = [line.split()[-1] for line in recorded().splitlines()[2:8]]

    assert names == ["parse", "idle", "z", "main", "serve", "alone"]


def test_a_recording_has_one_line_of_title_and_more_only_if_one_asks() -> None:
    assert recorded().splitlines()[0] == "CPU time: shop, 4 s: 3.3s in 330 samples"
    assert "Samples:" not in recorded()
    assert "Recorded: shop, eBPF\nSamples: about 300 expected, 330 taken, 0 late\n" in recorded(verbose=True)


def test_a_profile_of_another_program_has_a_title_of_what_it_tells() -> None:
    profile = replace(profile_of({"main > serve": 100}), mappings=[])
    graph = build_graph(profile, 0)
    shown = top.build(header.build(profile, 0, profile.total(0)), graph, ties_by_name=False)

    assert piped(lambda console: recorded_costs.render(shown, console)).splitlines()[0] == "samples: 100"


def test_what_a_recording_does_not_show_is_told() -> None:
    assert recorded(2).splitlines()[-2:] == [
        "        … 4 more: -N 0 shows all",
        "        … 1 row below 0.5%: 'pprofpy top --nodefraction 0' shows all",
    ]
