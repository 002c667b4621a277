"""The Profile: building, checking, merging, scaling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pprofpy.errors import ProfileFormatError, UsageError
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.combine import merge
from pprofpy.model.profile import Collection, Frame, Function, Label, LabelSet, Location, Mapping, Profile, ValueType
from pprofpy.model.stack_table import Stacks
from tests.stacks import CPU_TYPES, PERIOD_NS, as_text, profile_of, stack


def test_samples_with_the_same_stack_and_labels_are_one_row() -> None:
    builder = ProfileBuilder(CPU_TYPES)
    builder.add(stack("main > work"), (1, 10))
    builder.add(stack("main > work"), (2, 20))
    builder.add(stack("main > work"), (4, 40), (Label("thread", "T1"),))

    profile = builder.build()

    assert [(sample.values, sample.labels) for sample in profile.samples()] == [
        ((3, 30), ()),
        ((4, 40), (Label("thread", "T1"),)),
    ]
    assert len(profile.stacks) == 1


def test_stacks_are_leaf_first() -> None:
    (sample,) = profile_of({"main > work > inner": 1}).samples()

    assert [frame.function.name for frame in sample.stack] == ["inner", "work", "main"]


def test_the_same_function_at_two_lines_is_two_locations_of_one_function() -> None:
    profile = profile_of({"main > work:3": 1, "main > work:4": 1})

    assert len(profile.functions) == 2
    assert len(profile.locations) == 3


def test_an_address_without_a_name_is_shown_with_its_module() -> None:
    profile = replace(
        profile_of({}),
        mappings=[Mapping("/usr/lib/libc.so.6")],
        locations=[Location((), 0, 0x1234), Location((), -1, 0)],
        stacks=Stacks.of([[0, 1]]),
    )

    assert profile.stack_frames(0) == (
        Frame(Function("0000000000001234 [libc.so.6]")),
        Frame(Function("<unknown>")),
    )


def test_a_valid_profile_passes_the_check() -> None:
    profile_of({"main > work": 2, "": 1}).check_valid()


@pytest.mark.parametrize(
    "damage",
    [
        {"sample_types": ()},
        {"sample_stacks": np.array([7])},
        {"sample_stacks": np.array([-1])},
        {"sample_labels": np.array([3])},
        {"values": np.zeros((1, 3), np.int64)},
        {"values": np.zeros((2, 2), np.int64)},
        {"stacks": Stacks.of([[99]])},
        {"functions": []},
        {"mappings": []},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_a_profile_that_contradicts_itself_is_refused(damage: dict[str, object]) -> None:
    profile = profile_of({"main": 1})
    for name, value in damage.items():
        setattr(profile, name, value)

    with pytest.raises(ProfileFormatError):
        profile.check_valid()


def test_merging_adds_up_equal_stacks_and_keeps_the_others() -> None:
    merged = merge([profile_of({"a > b": 1, "a > c": 2}), profile_of({"x": 5, "a > b": 10})])

    merged.check_valid()
    assert as_text(merged) == {"a > b": 11, "a > c": 2, "x": 5}


def test_merging_keeps_labels_apart() -> None:
    one: LabelSet = (Label("thread", "one"),)
    two: LabelSet = (Label("thread", "two"),)

    merged = merge([profile_of({("a", one): 1, ("a", two): 2}), profile_of({("a", two): 4})])

    assert {sample.labels: sample.values[0] for sample in merged.samples()} == {one: 1, two: 6}


def test_merging_adds_durations_and_losses_and_keeps_the_earliest_start() -> None:
    first = replace(profile_of({"a": 1}), time_ns=200, duration_ns=5, collection=Collection("py-spy", asked=10, got=9))
    second = replace(profile_of({"a": 1}), time_ns=100, duration_ns=7, collection=Collection("py-spy", asked=4, got=4))

    merged = merge([first, second])

    assert (merged.time_ns, merged.duration_ns) == (100, 12)
    assert merged.collection == Collection("py-spy", asked=14, got=13)


def test_profiles_of_different_kinds_do_not_merge() -> None:
    heap = ProfileBuilder([ValueType("inuse_space", "bytes")]).build()

    with pytest.raises(UsageError, match="different kinds"):
        merge([profile_of({"a": 1}), heap])


def test_a_profile_less_itself_is_empty() -> None:
    profile = profile_of({"a > b": 3, "c": 1})

    assert len(merge([profile, profile.scale([-1, -1])])) == 0


def test_scaling_takes_one_ratio_for_each_sample_type() -> None:
    profile = profile_of({"a": 4})

    assert next(profile.scale([0.5, 2]).samples()).values == (2, 8 * PERIOD_NS)
    with pytest.raises(UsageError, match="1 ratios for 2"):
        profile.scale([1])


def test_negating_is_exact_for_the_largest_values() -> None:
    builder = ProfileBuilder(CPU_TYPES)
    builder.add(stack("a"), (2**53 + 1, 2**62))

    assert next(builder.build().scale([-1, -1]).samples()).values == (-(2**53) - 1, -(2**62))


@pytest.mark.parametrize(("name", "index"), [("", 1), ("samples", 0), ("cpu", 1), ("cpu/nanoseconds", 1), ("0", 0)])
def test_a_sample_type_is_found_by_name_or_index_and_defaults_to_the_last(name: str, index: int) -> None:
    assert profile_of({"a": 1}).value_index(name) == index


def test_the_writer_of_a_profile_may_name_the_default_sample_type() -> None:
    assert replace(profile_of({"a": 1}), default_sample_type="samples").value_index() == 0


def test_an_unknown_sample_type_is_refused_and_the_known_ones_are_listed() -> None:
    with pytest.raises(UsageError) as caught:
        profile_of({"a": 1}).value_index("inuse_space")
    assert "samples, cpu" in caught.value.hint


def test_an_empty_profile_is_a_profile() -> None:
    empty = Profile(CPU_TYPES, values=np.zeros((0, 2), np.int64))

    empty.check_valid()
    assert merge([empty, empty]).total(1) == 0


class TestStacks:
    """The columnar table of stacks."""

    stacks = Stacks.of([[1, 2], [], [3, 4, 5]])

    def rows(self, stacks: Stacks) -> list[list[int]]:
        return [stacks[index].tolist() for index in range(len(stacks))]

    def test_rows_come_back_as_they_went_in(self) -> None:
        assert self.rows(self.stacks) == [[1, 2], [], [3, 4, 5]]
        assert self.stacks.depths.tolist() == [2, 0, 3]
        assert self.stacks.owners().tolist() == [0, 0, 2, 2, 2]

    def test_take_chooses_and_repeats_rows(self) -> None:
        assert self.rows(self.stacks.take(np.array([2, 1, 2, 0]))) == [[3, 4, 5], [], [3, 4, 5], [1, 2]]

    def test_keep_drops_entries_but_no_rows(self) -> None:
        assert self.rows(self.stacks.keep(self.stacks.locations % 2 == 0)) == [[2], [], [4]]

    def test_any_tells_which_rows_hold_a_flagged_entry(self) -> None:
        assert self.stacks.any(self.stacks.locations == 4).tolist() == [False, False, True]
