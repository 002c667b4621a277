"""Names made harmless and short."""

from __future__ import annotations

import pytest
from rich.text import Text

from pprofpy.reports.text import printable, shorten, write_lines
from tests.looks import on_terminal, piped


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("plain_name", "plain_name"),
        ("λ.größe", "λ.größe"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x9b2J", r"\x9b2J"),
        ("user\u202etxt.exe", r"user\u202etxt.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("line\u2028break", r"line\u2028break"),
        ("\ud800", r"\ud800"),
        ("[bold]no markup[/bold] :smile:", "[bold]no markup[/bold] :smile:"),
    ],
)
def test_what_could_steer_a_terminal_is_written_out(hostile: str, harmless: str) -> None:
    assert printable(hostile) == harmless


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (26, "abcdefghijklmnopqrstuvwxyz"),
        (25, "abcdefghijkl…opqrstuvwxyz"),
        (5, "ab…yz"),
        (4, "ab…z"),
        (2, "a…"),
        (1, "…"),
    ],
)
def test_a_long_name_loses_its_middle(width: int, expected: str) -> None:
    assert shorten("abcdefghijklmnopqrstuvwxyz", width) == expected
    assert len(expected) == width


def test_a_pipe_gets_plain_lines_of_any_length() -> None:
    assert (
        piped(lambda console: write_lines(console, [Text("x" * 500, "red"), "[b]y[/b]"])) == "x" * 500 + "\n[b]y[/b]\n"
    )


def test_a_terminal_gets_colour_but_no_markup_from_names() -> None:
    text = on_terminal(lambda console: write_lines(console, [Text("hot", "red"), "[b]y[/b] :smile:"]))

    assert text == "\x1b[31mhot\x1b[0m\n[b]y[/b] :smile:\n"
