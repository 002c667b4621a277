"""Tables of our own: no line of a terminal wraps, no name is cut where there is no width."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pprofpy.reports.columns import Column, layout, names, numbers, quantities, shares

LONG = "package.module." + "Class." * 30 + "method"
WIDE = "計算する関数" * 20


def console(width: int, *, is_terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=is_terminal)


def example(*texts: str) -> list[Column]:
    count = len(texts)
    return [
        numbers("tid", range(count)),
        names("thread", texts),
        quantities("time", [10**9 * (place + 1) for place in range(count)]),
        shares("share", [1] * count, count),
        names("where", reversed(texts)),
    ]


@given(st.lists(st.text(max_size=120), min_size=1, max_size=5), st.integers(50, 120))
def test_no_line_is_wider_than_the_terminal(texts: list[str], width: int) -> None:
    for line in layout(example(*texts), console(width, is_terminal=True)):
        assert cell_len(line.plain) <= width


def test_the_widest_name_gives_way_first() -> None:
    heading, row, other = (one.plain for one in layout(example("short", LONG), console(80, is_terminal=True)))

    assert heading.split() == ["tid", "thread", "time", "share", "where"]
    assert row.startswith("   0  short ")
    assert "package.mod" in row
    assert row.endswith("method")
    assert other.endswith("short")


def test_a_pipe_has_no_width() -> None:
    _, first, second, third = (one.plain for one in layout(example("a", LONG, WIDE), console(80, is_terminal=False)))

    assert first == f"   0  {'a':60}    1s  33.3%  {WIDE}"
    assert second == f"   1  {LONG}    2s  33.3%  {LONG}"
    assert WIDE in third


def test_wide_characters_are_aligned() -> None:
    lines = layout(example("計算", "abcd"), console(80, is_terminal=True))

    assert len({cell_len(line.plain.rstrip().rpartition("%")[0]) for line in lines[1:]}) == 1


@pytest.mark.parametrize("is_terminal", [True, False])
def test_styles_stay_with_their_cells_and_harmful_names_are_written_out(is_terminal: bool) -> None:
    columns = [names("who", ["\x1b[31mx"]), Column("time", ["5s"], styles=["bold red"])]

    _, row = layout(columns, console(80, is_terminal=is_terminal))

    assert row.plain == " \\x1b[31mx    5s"
    (span,) = row.spans
    assert row.plain[span.start : span.end] == "  5s"
