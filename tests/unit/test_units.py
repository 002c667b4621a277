"""Quantities: what users may type, and how numbers are printed."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pprofpy.errors import UsageError
from pprofpy.units import (
    common_unit,
    format_column,
    format_duration,
    format_percent,
    format_share,
    format_value,
    parse_duration_ns,
    scale,
)

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


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([2_900_990_000], "nanoseconds", ["2.9s"]),
        ([5 * SECOND, 4_463_000_000, 294_000, 0], "ns", ["5000ms", "4460ms", "0.294ms", "0"]),
        ([50 * SECOND, 294_000, 1, -3 * SECOND], "ns", ["50s", "0.000294s", "<0.0000001s", "-3s"]),
        ([SECOND, 5_030_000, 26_123], "ns", ["1000ms", "5.03ms", "0.0261ms"]),
        ([10_730 * SECOND, 30 * SECOND], "ns", ["179min", "0.5min"]),
        ([700_000 * SECOND], "ns", ["194h"]),
        ([999_600_000], "ns", ["1s"]),
        ([999_400_000], "ns", ["999ms"]),
        ([3 << 20, 19_968, 700], "bytes", ["3070kB", "19.5kB", "0.684kB"]),
        ([1023], "bytes", ["1020B"]),
        ([1_234_567, 3], "count", ["1234567", "3"]),
        ([7, 5], "pages", ["7pages", "5pages"]),
        ([0, 0], "ns", ["0", "0"]),
        ([], "ns", []),
    ],
)
def test_a_column_has_one_unit_and_three_significant_digits(values: list[int], unit: str, expected: list[str]) -> None:
    assert format_column(values, unit) == expected


@given(st.lists(st.integers(-(10**17), 10**17), min_size=1))
def test_no_value_of_a_column_is_off_by_more_than_its_third_digit(values_ns: list[int]) -> None:
    units = {"": 1, "ns": 1, "us": 10**3, "ms": 10**6, "s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND}
    parts = [re.fullmatch(r"(-?<?[\d.]+)([a-z]*)", text) for text in format_column(values_ns, "ns")]
    cells = [(part[1], part[2]) for part in parts if part]

    assert len(cells) == len(values_ns)
    assert len({unit for _, unit in cells} - {""}) <= 1
    for value_ns, (number, unit) in zip(values_ns, cells, strict=True):
        if "<" in number:
            assert 0 < abs(value_ns) < 1e-7 * units[unit]
        else:
            assert abs(float(number) * units[unit] - value_ns) <= max(0.0051 * abs(value_ns), 0.6e-7 * units[unit])
            assert len(number.lstrip("-").partition(".")[0]) <= 4 or unit == "h"


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [
        (1, 3, "33.3%"), (10, 10, "100%"), (26, 10_000_000, "<0.01%"), (-26, 10_000_000, "-<0.01%"),
        (321, 10_000, "3.21%"), (412, 1_000_000, "0.04%"), (0, 5, "0%"), (5, 0, "0%"),
    ],
)  # fmt: skip
def test_shares_of_our_own_tables_have_three_digits_and_two_decimals(part: int, whole: int, expected: str) -> None:
    assert format_share(part, whole) == expected
