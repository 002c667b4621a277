"""The flame graph's layout, and the text of its SVG."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pprofpy.formats.output import SIGNATURE_WITHIN_BYTES
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.combine import merge, root_by_label
from pprofpy.model.graph import Granularity, build_graph
from pprofpy.model.profile import KERNEL_MAPPING, Collection, Frame, Function, Label, Mapping, Profile
from pprofpy.model.stack_table import Stacks
from pprofpy.reports import flamegraph, header
from pprofpy.reports.flamegraph import FlameGraph, FlameOptions
from tests.stacks import CPU_TYPES, PERIOD_NS, as_text, profile_of, stack

SVG = "{http://www.w3.org/2000/svg}"


def flame_of(profile: Profile, options: FlameOptions = FlameOptions()) -> FlameGraph:  # noqa: B008 - immutable
    graph = build_graph(profile, 1, Granularity.FILEFUNCTIONS)
    return flamegraph.build(header.build(profile, 1, graph.total), graph, options)


def places(flame: FlameGraph) -> dict[str, tuple[int, float, float]]:
    """Frame -> (level, left, width), the latter two in percent."""
    return {
        box.entity.name if box.entity else "all": (box.level, round(100 * box.left, 2), round(100 * box.width, 2))
        for box in flame.boxes
    }


def svg_of(profile: Profile, options: FlameOptions = FlameOptions()) -> ET.Element:  # noqa: B008 - immutable
    return ET.fromstring(flamegraph.render(flame_of(profile, options), options))


def titles(svg: ET.Element) -> list[str]:
    return [title.text or "" for title in svg.iter(f"{SVG}title")]


def test_width_is_cost_and_callees_lie_within_their_caller() -> None:
    flame = flame_of(profile_of({"main > load > parse": 3, "main > load": 1, "main > render": 4, "idle": 2}))

    assert places(flame) == {
        "all": (0, 0, 100),
        "idle": (1, 0, 20),
        "main": (1, 20, 80),
        "load": (2, 20, 40),
        "parse": (3, 20, 30),
        "render": (2, 60, 40),
    }


def test_siblings_lie_in_the_order_of_names_whatever_the_order_of_samples() -> None:
    there, back = {"b": 1, "a": 1, "c": 1}, {"c": 1, "a": 1, "b": 1}

    assert places(flame_of(profile_of(there))) == places(flame_of(profile_of(back)))


def test_frames_too_narrow_to_see_are_left_out_and_counted() -> None:
    profile = profile_of({"big": 9990, "small > child": 10})

    flame = flame_of(profile, FlameOptions(min_percent=0.5))

    assert set(places(flame)) == {"all", "big"}
    assert flame.hidden == 2
    assert "2 frames narrower than 0.5 % are not drawn." in flamegraph.render(flame, FlameOptions(min_percent=0.5))


def test_no_frame_is_left_out_if_none_may_be() -> None:
    profile = profile_of({f"f{i}": 1 for i in range(5000)})

    assert len(flame_of(profile, FlameOptions(min_percent=0)).boxes) == 5001


def test_a_thousand_levels_are_drawn() -> None:
    deep = replace(profile_of({"f": 1}), stacks=Stacks.of([[0] * 1000]))

    assert max(box.level for box in flame_of(deep).boxes) == 1000


def test_a_tooltip_tells_name_place_and_cost() -> None:
    (_, work) = titles(svg_of(profile_of({"work:7": 25})))

    assert work == "work\n/srv/work.py\n250ms, 100% of everything"


def test_losses_are_written_above_the_picture() -> None:
    profile = replace(
        profile_of({"a": 1}), collection=Collection("py-spy 0.4", "shop", asked=10, got=7, notes=("Beware.",))
    )

    text = flamegraph.render(flame_of(profile))

    assert "about 10 expected, 7 taken" in text
    assert "Note: Beware." in text


def test_functions_of_the_kernel_have_a_colour_of_their_own_and_the_legend_names_it() -> None:
    def picture_of(mapping: Mapping) -> dict[str, str]:
        builder = ProfileBuilder(CPU_TYPES)
        names = ("schedule", "do_futex", "work")
        kernel = [builder.frame_location(Frame(Function(name)), mapping) for name in names[:2]]
        builder.add_locations((*kernel, builder.frame_location(stack("work")[0])), (1, PERIOD_NS))
        svg = svg_of(builder.build())
        colours = {(group.findtext(f"{SVG}title") or "").split("\n")[0]: group for group in svg.iter(f"{SVG}g")}
        legend = " ".join(text.text or "" for text in svg.findall(f"{SVG}text"))
        found = {name: colours[name].get("class", "").rstrip("0123") for name in names}
        return found | {"legend": "kernel" if "kernel" in legend.split() else ""}

    for mapping in (KERNEL_MAPPING, Mapping("[kernel.kallsyms]")):
        assert picture_of(mapping) == {
            "schedule": "kernel", "do_futex": "kernel", "work": "app", "legend": "kernel",
        }  # fmt: skip
    assert picture_of(Mapping("/usr/bin/app")) == {"schedule": "root", "do_futex": "root", "work": "app", "legend": ""}


def test_viewers_that_know_no_variables_of_css_have_the_colours_all_the_same() -> None:
    """librsvg and CairoSVG painted everything but the frames black: one takes the first, the other the last colour."""
    style = svg_of(profile_of({"a": 1})).findtext(f"{SVG}style") or ""
    plain, separate, modern = style.partition("@supports (fill: var(--paper)) {")
    rule = re.compile(r"([^{}]+) \{ ([^{}]+) \}")
    colours = {f"var({name})": colour for name, colour in re.findall(r"(--\w+): (#\w+)", rule.search(plain)[2])}  # type: ignore[index]
    static = {name.strip(): body for name, body in rule.findall(plain) if "var(" not in body}
    with_variables = rule.findall(modern.partition("\n}")[0])

    assert separate
    assert len(with_variables) >= 4
    for selector, body in with_variables:
        kind, variable = re.fullmatch(r"(fill|stroke): (var\(\S+\));", body).groups()  # type: ignore[union-attr]
        assert f"{kind}: {colours[variable]};" in static[selector.strip()]


def test_an_empty_profile_says_so() -> None:
    assert "nothing to draw" in flamegraph.render(flame_of(profile_of({})))


def test_the_file_says_that_it_is_ours_where_we_look_for_it() -> None:
    start = flamegraph.render(flame_of(profile_of({"a": 1}))).encode()[:SIGNATURE_WITHIN_BYTES]

    assert b'data-generator="pprofpy' in start


def test_the_root_may_be_at_the_bottom() -> None:
    profile = profile_of({"main > work": 1})

    def heights(options: FlameOptions) -> list[float]:
        frames = svg_of(profile, options).find(f".//{SVG}g[@id='frames']")
        assert frames is not None
        return [float(rect.get("y", "")) for rect in frames.iter(f"{SVG}rect")]

    down, up = heights(FlameOptions(root_at_top=True)), heights(FlameOptions(root_at_top=False))

    assert down == sorted(down)
    assert up == sorted(up, reverse=True)


class TestDifference:
    """A profile with another subtracted."""

    flame = flame_of(
        merge([profile_of({"main > grew": 30, "main > same": 5}), profile_of({"main > gone": 10}).scale([-1, -1])])
    )

    def test_widths_are_the_sum_of_all_changes(self) -> None:
        assert places(self.flame)["gone"][2] == round(100 * 10 / 45, 2)
        assert places(self.flame)["main"][2] == 100

    def test_growth_tells_the_direction(self) -> None:
        growth = {box.entity.name: box.growth for box in self.flame.boxes if box.entity}

        assert growth == {"main": pytest.approx(25 / 45), "grew": 1, "same": 1, "gone": -1}

    def test_values_are_signed(self) -> None:
        shown = titles(ET.fromstring(flamegraph.render(self.flame)))

        assert any(text.startswith("gone") and "\n-100ms, " in text for text in shown)
        assert any(text.startswith("grew") and "\n+300ms, " in text for text in shown)


class TestByLabel:
    """Threads (or any label) as the outermost frames."""

    profile = profile_of(
        {
            ("main > work", (Label("thread", "one"),)): 1,
            ("main", (Label("thread", "two"),)): 2,
            ("main > work", (Label("thread", "two"), Label("tid", 5))): 4,
            ("alone", ()): 8,
        }
    )

    def test_each_stack_grows_from_its_label(self) -> None:
        rooted = root_by_label(self.profile, "thread")

        rooted.check_valid()
        assert as_text(rooted) == {
            "thread one > main > work": 1,
            "thread two > main": 2,
            "thread two > main > work": 4,
            "thread > alone": 8,
        }


HOSTILE = [
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "a]]>b",
    "&amp;&lt;",
    "nul\x00bell\x07esc\x1b[31m",
    "\ud800 lone",
    "\u202eright to left",
    "\ufffe\uffff",
    "x" * 10_000,
    "",
    "line\nbreak\ttab",
]


def named(name: str, filename: str = "/srv/a.py") -> Profile:
    builder = ProfileBuilder(CPU_TYPES)
    builder.add([Frame(Function(name, name, filename), 3)], (1, PERIOD_NS), (Label("thread", name),))
    return builder.build()


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_stay_text(name: str) -> None:
    svg = svg_of(named(name, f"/srv/{name}.py"), FlameOptions(title=name))

    assert len(list(svg.iter(f"{SVG}script"))) == 1
    assert len(titles(svg)) == 2


@settings(deadline=None, max_examples=200)
@given(name=st.text(st.characters(), max_size=40))
def test_any_name_gives_well_formed_xml(name: str) -> None:
    assert len(titles(svg_of(named(name, name)))) == 2


def test_markup_comes_back_as_it_was() -> None:
    assert titles(svg_of(named("<b>&'\"</b>")))[1].startswith("<b>&'\"</b>\n")
