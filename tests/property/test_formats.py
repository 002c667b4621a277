"""Laws that hold for every profile and every file: arithmetic, round trips, and that damage ends in our own error."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from collections import Counter
from pathlib import PurePath

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from pprofpy.errors import PprofpyError, ProfileFormatError
from pprofpy.formats import FORMATS, collapsed, decode, encode, format_of, pprof, speedscope
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.combine import merge
from pprofpy.model.filters import prune
from pprofpy.model.graph import Granularity, build_call_tree, build_graph
from pprofpy.model.profile import Frame, Function, Label, LabelSet, Profile, ValueType
from pprofpy.reports import header, top, traces, tree
from pprofpy.reports import list as listing
from pprofpy.reports.source_finder import SourceFinder
from pprofpy.reports.trim import EVERYTHING
from tests.stacks import profile_of

NOWHERE = Console(file=io.StringIO())

names = st.one_of(st.sampled_from(["main", "work", "a.b", "λ"]), st.text(min_size=1, max_size=8))
frames = st.builds(
    lambda name, file, line: Frame(Function(name, name, file), line),
    names, st.sampled_from(["", "/srv/a.py", "/srv/b;.py"]), st.integers(0, 3),
)  # fmt: skip
labels = st.lists(
    st.one_of(
        st.builds(Label, st.just("thread"), st.sampled_from(["T1", "T2", "w;x"]), st.just("")),
        st.builds(Label, st.just("tid"), st.integers(-(2**63), 2**63 - 1), st.just("")),
        st.builds(Label, st.just("bytes"), st.integers(0, 2**40), st.just("bytes")),
    ),
    max_size=2, unique_by=lambda label: label.key,
).map(tuple)  # fmt: skip
rows = st.lists(
    st.tuples(st.lists(frames, max_size=6), st.integers(0, 2**31), st.integers(1, 2**50), labels), max_size=8
)
TYPES = (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    builder = ProfileBuilder(TYPES)
    for stack, count, value, label_set in draw(rows):
        builder.add(stack, (count, value), label_set)
    return builder.build()


def contents(profile: Profile) -> Counter[object]:
    """Stacks and labels with their summed values, whatever the order."""
    found: Counter[object] = Counter()
    for stack, values, label_set in profile.samples():
        for index, value in enumerate(values):
            found[stack, label_set, index] += value
    return +found


class TestArithmetic:
    """Flat, cum and total."""

    @given(profiles(), st.sampled_from(list(Granularity)))
    def test_flat_adds_up_to_the_total_and_lies_below_cum(self, profile: Profile, granularity: Granularity) -> None:
        graph = build_graph(profile, 1, granularity)
        without_stack = sum(sample.values[1] for sample in profile.samples() if not sample.stack)

        assert graph.flat.sum() + without_stack == graph.total
        assert (graph.flat <= graph.cum).all()
        assert (graph.cum <= graph.total).all()

    @given(profiles())
    def test_the_call_tree_holds_the_same_flat_values(self, profile: Profile) -> None:
        graph = build_graph(profile, 1)
        tree = build_call_tree(graph)

        own = np.zeros(len(graph.entities) + 1, np.int64)
        np.add.at(own, tree.entity, tree.own)
        assert own[:-1].tolist() == graph.flat.tolist()
        assert tree.total[0] == graph.total

    @given(profiles(), profiles())
    def test_merging_commutes(self, one: Profile, other: Profile) -> None:
        assert contents(merge([one, other])) == contents(merge([other, one])) == contents(one) + contents(other)

    @given(profiles())
    def test_a_profile_less_itself_is_nothing(self, profile: Profile) -> None:
        assert len(merge([profile, profile.scale([-1, -1])])) == 0


class TestRoundTrips:
    """What is written is read back: all of it from pprof, what the others can hold from them."""

    @given(profiles())
    def test_pprof_keeps_everything(self, profile: Profile) -> None:
        again = decode(pprof.write(profile))

        assert contents(again) == contents(profile)
        assert again.functions == profile.functions

    @given(profiles())
    def test_speedscope_keeps_functions_and_values(self, profile: Profile) -> None:
        again = decode(speedscope.write(profile))

        assert by_function(again, 0) == by_function(profile, 1)

    @given(profiles())
    @example(profile_of({"0 0": 1}))
    @example(profile_of({"main > a 5": 3}))
    @example(profile_of({"waits for all:": 3}))
    @example(profile_of({"# a": 3, "a=": 1}))
    def test_collapsed_keeps_names_and_counts(self, profile: Profile) -> None:
        """Names may change a little: no separators, no control characters, and `name (file:1)` is taken apart."""
        written = collapsed.write(profile)

        if profile.total(0):
            assert depths(collapsed.read(written)) == depths(profile)
        else:
            assert written == b""

    @given(profiles(), st.sampled_from(sorted(FORMATS)))
    def test_a_file_that_carries_our_name_says_so_at_its_beginning(self, profile: Profile, name: str) -> None:
        if name != "collapsed":
            assert b"pprofpy" in encode(profile, name)[:1024]

    @pytest.mark.parametrize("name", sorted(FORMATS))
    def test_a_suffix_names_its_format(self, name: str) -> None:
        for suffix in FORMATS[name].suffixes:
            assert format_of(str(PurePath("folder.pb") / f"X{suffix.upper()}")) == name


def by_function(profile: Profile, value_index: int) -> Counter[object]:
    """Stack of function names and files -> value."""
    found: Counter[object] = Counter()
    for stack, values, _ in profile.samples():
        found[tuple((frame.function.name, frame.function.filename) for frame in stack)] += values[value_index]
    return +found


def depths(profile: Profile) -> Counter[int]:
    """Depth of a stack -> number of samples."""
    found: Counter[int] = Counter()
    for sample in profile.samples():
        found[len(sample.stack)] += sample.values[0]
    return found


STACKS: dict[tuple[str, LabelSet], int] = {
    (f"main > work_{i % 3} > inner:{i}", (Label("thread", f"T{i % 2}"), Label("tid", i), Label("b", i, "bytes"))): i
    for i in range(1, 12)
}
SPECIMEN = profile_of(STACKS)


def tolerates(data: bytes) -> None:
    """Reading ends in a valid profile or in our own error; anything else fails the test."""
    with contextlib.suppress(ProfileFormatError):
        decode(data).check_valid()


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.just("\ud800")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


def changes(data: bytes, most: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Places in `data` and what to write there, at most so many."""
    return st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=most)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with up to ten bytes changed, and perhaps a piece cut out."""
    result = changed(data, draw(changes(data, 10)))
    start = draw(st.integers(0, len(result)))
    stop = draw(st.one_of(st.just(start), st.integers(start, len(result)), st.just(len(result))))
    return result[:start] + result[stop:]


def changed(data: bytes, wanted: list[tuple[int, int]]) -> bytes:
    result = bytearray(data)
    for place, value in wanted:
        result[place] = value
    return bytes(result)


class TestDamage:
    """Whatever a file holds, reading it raises nothing but ProfileFormatError."""

    @settings(max_examples=500)
    @given(mutated(pprof.write(SPECIMEN)))
    def test_a_damaged_pprof_file(self, data: bytes) -> None:
        tolerates(data)

    @settings(max_examples=1000)
    @given(mutated(gzip.decompress(pprof.write(SPECIMEN))))
    def test_a_damaged_pprof_message(self, data: bytes) -> None:
        tolerates(data)
        tolerates(gzip.compress(data, 0))

    @settings(max_examples=500)
    @given(mutated(speedscope.write(SPECIMEN)))
    def test_a_damaged_speedscope_file(self, data: bytes) -> None:
        tolerates(data)

    @settings(max_examples=300)
    @given(mutated(collapsed.write(SPECIMEN)))
    def test_damaged_collapsed_stacks(self, data: bytes) -> None:
        tolerates(data)

    @given(json_values)
    def test_json_that_is_no_profile(self, value: object) -> None:
        tolerates(json.dumps({"profiles": value, "shared": {"frames": value}}).encode())
        document = json.loads(speedscope.write(SPECIMEN))
        for key in ("name", "shared", "profiles"):
            tolerates(json.dumps({**document, key: value}).encode())
        for key in ("type", "name", "unit", "samples", "weights"):
            tolerates(json.dumps({**document, "profiles": [{**document["profiles"][0], key: value}]}).encode())

    @given(st.binary(max_size=200))
    def test_random_bytes(self, data: bytes) -> None:
        tolerates(data)
        for module in (pprof, collapsed, speedscope):
            with contextlib.suppress(ProfileFormatError):
                module.read(data).check_valid()

    def test_every_length_of_a_file_cut_short(self) -> None:
        for data in (pprof.write(SPECIMEN), speedscope.write(SPECIMEN), collapsed.write(SPECIMEN)):
            for length in range(0, len(data), 3):
                tolerates(data[:length])


class TestViews:
    """What could be read can be shown, however odd: no view ends in anything but our own errors."""

    message = gzip.decompress(pprof.write(SPECIMEN))

    @settings(max_examples=300)
    @given(changes(message, 2))
    def test_a_damaged_profile_that_is_still_valid(self, wanted: list[tuple[int, int]]) -> None:
        with contextlib.suppress(PprofpyError):
            profile = merge([prune(decode(changed(self.message, wanted)))])
            for value_index in range(len(profile.sample_types)):
                show_all(profile, value_index)


def show_all(profile: Profile, value_index: int) -> None:
    graph = build_graph(profile, value_index, Granularity.LINES)
    about = header.build(profile, value_index, graph.total)
    unit = "minimum"
    top.render(top.build(about, graph, EVERYTHING), NOWHERE)
    tree.render(tree.build(about, graph, EVERYTHING), NOWHERE)
    traces.render(traces.build(about, profile, value_index, graph, unit), NOWHERE)
    listing.render(listing.build(about, profile, value_index, ".", SourceFinder(), unit), NOWHERE)
    for name in FORMATS:
        decode(encode(profile, name))
