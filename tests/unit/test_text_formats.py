"""Collapsed stacks and speedscope files, ours and other tools'."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pprofpy.errors import ProfileFormatError, UsageError
from pprofpy.formats import collapsed, decode, speedscope
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Frame, Function, Label, LabelSet, ValueType
from tests.stacks import PERIOD_NS, as_text, profile_of

THREADS: dict[tuple[str, LabelSet], int] = {
    ("main > work", (Label("thread", "T1"), Label("tid", 1))): 3,
    ("main > work", (Label("thread", "T2"), Label("tid", 2))): 4,
    ("main", ()): 5,
}


class TestCollapsed:
    """`outermost;...;innermost count`."""

    def test_a_line_for_each_stack_threads_summed_up(self) -> None:
        assert collapsed.write(profile_of(THREADS)) == b"main;work 7\nmain 5\n"

    def test_stacks_that_differ_only_in_lines_are_one(self) -> None:
        assert collapsed.write(profile_of({"main:1 > work:2": 1, "main:1 > work:3": 2})) == b"main;work 3\n"

    def test_separators_and_line_breaks_in_names_are_made_harmless(self) -> None:
        assert collapsed.write(profile_of({"a;b > c\nd\x1b[0m": 1})) == b"a:b;c d [0m 1\n"

    def test_without_a_count_the_default_type_is_written(self) -> None:
        builder = ProfileBuilder([ValueType("alloc_space", "bytes"), ValueType("inuse_space", "bytes")])
        builder.add((Frame(Function("f")),), (100, 7))

        assert collapsed.write(builder.build()) == b"f 7\n"

    def test_samples_without_a_stack_are_kept(self) -> None:
        profile = collapsed.read(collapsed.write(profile_of({"": 2, "a": 1})))

        assert as_text(profile) == {"": 2, "a": 1}

    def test_py_spy_frames_are_taken_apart(self) -> None:
        profile = decode(b"<module> (/srv/app.py:10);work (/srv/lib (1).py:7);f(int (*)(int)) (f.cpp:3) 42\n")

        (sample,) = profile.samples()
        assert sample.values == (42,)
        assert [(f.function.name, f.function.filename, f.line) for f in sample.stack] == [
            ("f(int (*)(int))", "f.cpp", 3),
            ("work", "/srv/lib (1).py", 7),
            ("<module>", "/srv/app.py", 10),
        ]

    def test_names_with_spaces_and_numbers_comments_and_windows_lines(self) -> None:
        profile = decode(b"\xef\xbb\xbf# made by hand\r\n\r\noperator new 1;x 5 3\r\nmain\t4\r\n")

        assert as_text(profile) == {"operator new 1 > x 5": 3, "main": 4}

    def test_a_name_may_begin_with_a_brace(self) -> None:
        assert as_text(decode(b"{closure};main 3\n")) == {"{closure} > main": 3}

    def test_lines_without_a_value_are_counted(self) -> None:
        profile = decode(b"main 1\nno value here\n")

        assert profile.collection.notes == ("1 line of the collapsed file had no value and was left out.",)

    @pytest.mark.parametrize("data", [b"hello world\n", b"# only a comment\n", b"\n\n", b"12\n"])
    def test_other_text_is_no_profile(self, data: bytes) -> None:
        with pytest.raises(ProfileFormatError, match="no profile in any format"):
            decode(data)

    @pytest.mark.parametrize("value", [b"9999999999999999999", b"9223372036854775807"])
    def test_values_that_do_not_add_up_are_refused(self, value: bytes) -> None:
        with pytest.raises(ProfileFormatError, match="too large"):
            decode(b"a " + value + b"\na 1\n")


def speedscope_file(**changes: Any) -> bytes:
    """A file as another tool writes it: times in seconds, fractions among them."""
    profile = {"type": "sampled", "name": "Thread 1", "unit": "seconds", "startValue": 0, "endValue": 1}
    samples = {"samples": [[0, 1], [0]], "weights": [0.5, 2]}
    document = {"shared": {"frames": [{"name": "main", "file": "/m.py", "line": 3}, {"name": "work"}]}}
    return json.dumps({**document, "profiles": [{**profile, **samples, **changes}]}).encode()


class TestSpeedscope:
    """One profile a thread."""

    def test_each_thread_is_a_profile_the_busiest_first(self) -> None:
        document = json.loads(speedscope.write(profile_of(THREADS)))

        assert [(p["name"], p["unit"], p["endValue"]) for p in document["profiles"]] == [
            ("T1", "nanoseconds", 3 * PERIOD_NS),
            ("T2", "nanoseconds", 4 * PERIOD_NS),
            ("cpu", "nanoseconds", 5 * PERIOD_NS),
        ]

    def test_it_says_who_wrote_it_first_of_all(self) -> None:
        assert speedscope.write(profile_of({"a": 1})).startswith(b'{"exporter":"pprofpy@')

    def test_threads_of_one_name_are_told_apart(self) -> None:
        pool = "pool"
        stacks: dict[tuple[str, LabelSet], int] = {
            ("a", (Label("thread", pool), Label("tid", 1))): 1,
            ("a", (Label("thread", pool), Label("tid", 2))): 1,
            ("a", (Label("thread", pool), Label("tid", 2), Label("pid", 9))): 1,
        }

        document = json.loads(speedscope.write(profile_of(stacks)))

        assert {p["name"] for p in document["profiles"]} == {"pool (tid 1)", "pool (tid 2)", "pool (pid 9, tid 2)"}

    def test_a_difference_is_refused(self) -> None:
        with pytest.raises(UsageError, match="negative"):
            speedscope.write(profile_of({"a": -1}))

    def test_an_empty_profile_is_a_valid_file(self) -> None:
        assert len(decode(speedscope.write(profile_of({})))) == 0

    def test_what_we_write_we_read(self) -> None:
        again = decode(speedscope.write(profile_of(THREADS)))

        assert {(s.labels, len(s.stack)): s.values[0] // PERIOD_NS for s in again.samples()} == {
            ((Label("thread", "T1"),), 2): 3,
            ((Label("thread", "T2"),), 2): 4,
            ((Label("thread", "cpu"),), 1): 5,
        }

    def test_a_profile_without_threads_stays_without(self) -> None:
        (sample,) = decode(speedscope.write(profile_of({"a": 1}))).samples()

        assert sample.labels == ()

    def test_times_become_nanoseconds(self) -> None:
        profile = decode(speedscope_file())

        assert profile.sample_types == (ValueType("time", "nanoseconds"),)
        assert [(s.values, [f.function.name for f in s.stack]) for s in profile.samples()] == [
            ((500_000_000,), ["work", "main"]),
            ((2_000_000_000,), ["main"]),
        ]
        assert next(profile.samples()).labels == (Label("thread", "Thread 1"),)

    @pytest.mark.parametrize(
        ("unit", "kind"), [("bytes", ValueType("space", "bytes")), ("none", ValueType("samples", "count"))]
    )
    def test_other_units_stay(self, unit: str, kind: ValueType) -> None:
        assert decode(speedscope_file(unit=unit, weights=[1, 2])).sample_types == (kind,)

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"type": "evented"}, "where a list is due"),
            ({"type": "drawn"}, "a profile of type .drawn"),
            ({"unit": "parsecs"}, "not a unit"),
            ({"unit": ["seconds"]}, "not a unit"),
            ({"samples": [[2], [0]]}, "frame 2"),
            ({"samples": [[-1], [0]]}, "frame -1"),
            ({"samples": [[True], [0]]}, "frame True"),
            ({"samples": [0, [0]]}, "where a list is due"),
            ({"weights": [1]}, "2 samples but 1 weights"),
            ({"weights": [1, "2"]}, "not a weight"),
            ({"weights": [1, -2]}, "not a weight"),
            ({"weights": [1, float("nan")]}, "NaN"),
            ({"weights": [2**63, 1]}, "too large"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_the_reason(self, changes: dict[str, Any], reason: str) -> None:
        with pytest.raises(ProfileFormatError, match=reason):
            decode(speedscope_file(**changes))

    @pytest.mark.parametrize("data", [b"{", b'{"a": ' * 100_000, b"{}", b'{"profiles": [], "shared": {"frames": []}}'])
    def test_other_json_is_refused(self, data: bytes) -> None:
        with pytest.raises(ProfileFormatError):
            decode(data)

    def test_names_that_no_encoding_can_write_are_cleaned(self) -> None:
        data = speedscope_file().replace(b'"work"', b'"\\ud800"')

        assert "?" in {frame.function.name for sample in decode(data).samples() for frame in sample.stack}


def test_both_are_written_from_a_profile_whose_locations_have_no_names() -> None:
    profile = profile_of({"a > b": 2})
    bare = replace(profile, locations=[location._replace(lines=(), mapping=-1) for location in profile.locations])

    assert collapsed.write(bare) == b"<unknown>;<unknown> 2\n"
    assert json.loads(speedscope.write(bare))["shared"]["frames"] == [{"name": "<unknown>"}]
