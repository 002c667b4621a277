"""Filters: which samples to look at, which frames to see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pprofpy.errors import UsageError
from pprofpy.model import filters
from pprofpy.model.filters import Filters
from pprofpy.model.profile import Label, Line, Location, Mapping, Profile
from tests.stacks import as_text, profile_of

PROFILE = profile_of({"main > load > parse": 3, "main > load": 5, "main > render": 7, "idle": 11})


def filtered(profile: Profile = PROFILE, **options: str) -> dict[str, int]:
    result, _ = filters.apply(profile, Filters(**options))
    result.check_valid()
    return as_text(result)


def test_without_filters_nothing_changes() -> None:
    assert filtered() == as_text(PROFILE)


def test_focus_keeps_whole_stacks_that_touch_the_function() -> None:
    assert filtered(focus="load") == {"main > load > parse": 3, "main > load": 5}


def test_focus_also_looks_at_file_names() -> None:
    assert filtered(focus=r"/srv/render\.py$") == {"main > render": 7}


def test_ignore_drops_whole_stacks() -> None:
    assert filtered(ignore="parse|render") == {"main > load": 5, "idle": 11}


def test_focus_and_ignore_combine() -> None:
    assert filtered(focus="load", ignore="parse") == {"main > load": 5}


def test_hide_removes_frames_and_keeps_the_time() -> None:
    assert filtered(hide="^load$") == {"main > parse": 3, "main": 5, "main > render": 7, "idle": 11}


def test_samples_that_lose_their_last_frame_go() -> None:
    assert filtered(hide="idle") == {"main > load > parse": 3, "main > load": 5, "main > render": 7}


def test_show_leaves_only_matching_frames() -> None:
    assert filtered(show="main|parse") == {"main > parse": 3, "main": 12}


def test_show_from_cuts_the_stack_above_the_outermost_match() -> None:
    assert filtered(show_from="load") == {"load > parse": 3, "load": 5}


def test_hiding_an_inlined_frame_keeps_the_one_it_was_inlined_into() -> None:
    profile = replace(PROFILE, locations=[Location((Line(0), Line(1))), *PROFILE.locations[1:]])

    shown = filtered(profile, hide=f"^{PROFILE.functions[0].name}$")

    assert sum(shown.values()) == PROFILE.values[:, 0].sum()


def test_a_mapping_name_matches_too() -> None:
    profile = replace(PROFILE, mappings=[Mapping("/usr/lib/libssl.so")])

    assert filtered(profile, focus="libssl") == as_text(profile)


def test_a_filter_without_a_match_is_reported() -> None:
    _, unmatched = filters.apply(PROFILE, Filters(focus="nowhere", hide="idle"))

    assert unmatched == ["focus"]


def test_a_broken_expression_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"'\(' is not a regular expression"):
        filters.apply(PROFILE, Filters(focus="("))


class TestTags:
    """Selecting samples by label."""

    profile = profile_of(
        {
            ("a", (Label("thread", "worker-1"), Label("bytes", 4096, "bytes"))): 1,
            ("b", (Label("thread", "worker-2"), Label("bytes", 65536, "bytes"))): 2,
            ("c", (Label("thread", "MainThread"),)): 4,
            ("d", ()): 8,
        }
    )

    @pytest.mark.parametrize(
        ("expression", "kept"),
        [
            ("thread=worker", "ab"),
            ("thread=^worker-2$", "b"),
            ("thread=worker-1,Main", "ac"),
            ("thread:worker", "ab"),
            ("worker,2", "b"),
            ("bytes=4kb", "a"),
            ("bytes=4kb:", "ab"),
            ("bytes=:4096b", "a"),
            ("bytes=8kb:1mb", "b"),
            ("64kb", "b"),
            ("bytes=1s:", ""),
            ("nothing=x", ""),
        ],
    )
    def test_tagfocus_keeps_what_matches(self, expression: str, kept: str) -> None:
        assert "".join(filtered(self.profile, tag_focus=expression)) == kept

    def test_tagignore_drops_what_matches(self) -> None:
        assert "".join(filtered(self.profile, tag_ignore="thread=worker")) == "cd"


class TestPrune:
    """Frames that a profile's writer marked as noise."""

    def test_marked_frames_and_what_they_called_go(self) -> None:
        profile = replace(profile_of({"main > work > malloc > mmap": 1, "main": 2}), drop_frames="malloc|free")

        assert as_text(filters.prune(profile)) == {"main > work": 1, "main": 2}

    def test_keep_frames_protects(self) -> None:
        profile = replace(profile_of({"main > malloc_hook > x": 1}), drop_frames="malloc.*", keep_frames="malloc_hook")

        assert as_text(filters.prune(profile)) == {"main > malloc_hook > x": 1}

    def test_the_argument_list_of_a_c_plus_plus_name_does_not_matter(self) -> None:
        profile = replace(profile_of({"main > operator()(int) > new(unsigned long)": 1}), drop_frames="new")

        assert as_text(filters.prune(profile)) == {"main > operator()(int)": 1}

    def test_a_stack_that_begins_with_noise_does_not_vanish(self) -> None:
        profile = replace(profile_of({"malloc > mmap": 1, "malloc > main > malloc": 2}), drop_frames="malloc")

        assert as_text(filters.prune(profile)) == {"malloc > mmap": 1, "malloc > main": 2}

    def test_a_profile_without_such_marks_stays_as_it_is(self) -> None:
        assert filters.prune(PROFILE) is PROFILE
