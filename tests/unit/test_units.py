"""Quantities: what users may type, and how numbers are printed."""

from __future__ import annotations

import pytest

from pprofpy.errors import UsageError
from pprofpy.units import common_unit, format_duration, format_percent, format_value, parse_duration_ns, scale

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("30", 30 * SECOND),
        ("30s", 30 * SECOND),
        ("1.5s", 1_500_000_000),
        (".5", 500_000_000),
        ("500ms", 500_000_000),
        ("20us", 20_000),
        ("20µs", 20_000),
        ("2m", 120 * SECOND),
        ("1m30s", 90 * SECOND),
        ("1m30", 90 * SECOND),
        ("1h", 3600 * SECOND),
        (" 10 S ", 10 * SECOND),
        ("0", 0),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, expected_ns: int) -> None:
    assert parse_duration_ns(text) == expected_ns


@pytest.mark.parametrize("text", ["", "-1", "s", "3 parsecs", "10 20", "1e3", "nan", "9" * 30])
def test_what_is_no_duration_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration_ns(text)
    assert "30s" in caught.value.hint


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "nanoseconds", "0"),
        (999, "nanoseconds", "999ns"),
        (1_230_000, "nanoseconds", "1.23ms"),
        (30 * SECOND, "nanoseconds", "30s"),
        (7200 * SECOND, "nanoseconds", "2hrs"),
        (1024, "bytes", "1kB"),
        (41_540_000, "bytes", "39.62MB"),
        (-2048, "bytes", "-2kB"),
        (12345, "count", "12345"),
        (3, "", "3"),
        (-4, "count", "-4"),
    ],
)
def test_values_are_printed_in_the_largest_fitting_unit(value: int, unit: str, expected: str) -> None:
    assert format_value(value, unit) == expected


def test_a_table_can_force_one_unit() -> None:
    assert format_value(1_500_000, "nanoseconds", "s") == "0"
    assert format_value(1_500_000_000, "nanoseconds", "ms") == "1500ms"
    assert scale(1_500_000, "nanoseconds", "s") == (0.0015, "s")


def test_an_unknown_unit_is_shown_as_it_is() -> None:
    assert format_value(5, "widgets", "widgets") == "5widgets"


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (0, 100, "    0%"),
        (1, 3, "33.33%"),
        (9996, 10000, "  100%"),
        (1, 100_000, "0.001%"),
        (123, 100_000, " 0.12%"),
        (5, 0, "    0%"),
        (-50, 100, "50.00%"),
    ],
)
def test_shares_keep_two_significant_digits(part: int, whole: int, expected: str) -> None:
    assert format_percent(part, whole) == expected


def test_a_table_takes_a_unit_in_which_its_smallest_value_still_shows() -> None:
    # 10 ms beside 30 s: seconds show it as 0.01.
    assert common_unit([30 * SECOND, 10_000_000], 30 * SECOND, "nanoseconds") == "s"
    # 1 ms beside 30 s would vanish in seconds.
    assert common_unit([30 * SECOND, 1_000_000], 30 * SECOND, "nanoseconds") == "ms"
    assert common_unit([], 0, "count") == "count"


@pytest.mark.parametrize(
    ("duration_ns", "expected"),
    [(820_000_000, "820 ms"), (30 * SECOND, "30 s"), (125 * SECOND, "2 min 5 s"), (2 * 3600 * SECOND, "2 h 0 min")],
)
def test_durations_are_printed_as_one_says_them(duration_ns: int, expected: str) -> None:
    assert format_duration(duration_ns) == expected
