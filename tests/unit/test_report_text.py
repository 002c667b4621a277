"""Names made harmless and short."""

from __future__ import annotations

import pytest
from rich.text import Text

from pprofpy.reports.text import shorten, write_lines
from pprofpy.text import json_text, printable
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


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("a\nb\x1b[2J", r"a\nb\x1b[2J"),
        (Text.assemble("a\u202e", ("b\x1b", "red"), "c"), r"a\u202e" + "\x1b[31mb\\x1b\x1b[0mc"),
        (Text("\x1bx", "bold"), "\x1b[1m" + r"\x1bx" + "\x1b[0m"),
    ],
)
def test_every_line_is_made_harmless_and_keeps_its_colours(line: Text | str, shown: str) -> None:
    assert on_terminal(lambda console: write_lines(console, [line])) == shown + "\n"
    plain = piped(lambda console: write_lines(console, [line]))
    assert plain.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"a": "ö\x7f\u202e"}, r'{"a": "\u00f6\u007f\u202e"}'),
        (["\ud800", "\ud83d\ude00", "\U0001f600", "\\ud800", "\\\ud800"],
         r'["\ufffd", "\ud83d\ude00", "\ud83d\ude00", "\\ud800", "\\\ufffd"]'),
        ([float("nan"), {"x": (float("inf"), 1.5)}], '[null, {"x": [null, 1.5]}]'),
        ({"\udfff": 1}, r'{"\ufffd": 1}'),
    ],
)  # fmt: skip
def test_json_is_ascii_that_every_parser_takes(data: object, text: str) -> None:
    assert json_text(data) == text


def test_a_pipe_gets_plain_lines_of_any_length() -> None:
    assert (
        piped(lambda console: write_lines(console, [Text("x" * 500, "red"), "[b]y[/b]"])) == "x" * 500 + "\n[b]y[/b]\n"
    )


def test_a_terminal_gets_colour_but_no_markup_from_names() -> None:
    text = on_terminal(lambda console: write_lines(console, [Text("hot", "red"), "[b]y[/b] :smile:"]))

    assert text == "\x1b[31mhot\x1b[0m\n[b]y[/b] :smile:\n"
