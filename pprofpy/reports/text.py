"""Lines of text for a terminal or a pipe: hostile names made harmless, long ones cut only where somebody watches.

Reports need not think of it: `write_lines`, through which all tables go, makes each line harmless. So does `shorten`:
what is written out is longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Protocol

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Span, Text

from pprofpy.text import printable
from pprofpy.units import format_percent

NARROWEST_NAME = 16
"""Names are not cut below this, however narrow the terminal: a table that wraps beats one that says nothing. At 80
columns, this is what the table of calls has room for."""


def shorten(text: str, width: int) -> str:
    """`text`, made harmless, at most `width` columns wide: a long one loses its middle, since both ends matter."""
    text = printable(text)
    if cell_len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{set_cell_size(text, width - 1 - tail)}…{set_cell_size(text[::-1], tail)[::-1]}"


def name_width(console: Console, taken: int) -> int:
    """How many characters of a line are left for a name; no limit where nobody watches."""
    return max(console.width - taken, NARROWEST_NAME) if console.is_terminal else 1 << 30


def heat(value: int, total: int) -> str:
    """The style of a value by its share of the total: only what matters stands out."""
    share = abs(value / total) if total else 0.0
    return "bold red" if share >= 0.25 else "yellow" if share >= 0.05 else "dim" if share < 0.005 else ""


class Spent(Protocol):
    """What a row of a profile's table is about: what was spent in it, in it and those above, and below it."""

    @property
    def flat(self) -> int:
        """In it alone."""

    @property
    def flat_sum(self) -> int:
        """In it and in all rows above."""

    @property
    def cum(self) -> int:
        """In it and in all that it called."""


def flat_and_cum(row: Spent, total: int, worded: Callable[[int], str]) -> tuple[str | tuple[str, str], ...]:
    """The columns flat, flat%, sum%, cum and cum%, as parts of a `Text`.

    Args:
        row: What was spent.
        total: What the percentages are of.
        worded: Writes a value with its unit.
    """
    return (
        f"{worded(row.flat):>10} ",
        (format_percent(row.flat, total), heat(row.flat, total)),
        f" {format_percent(row.flat_sum, total)} {worded(row.cum):>10} ",
        (format_percent(row.cum, total), heat(row.cum, total)),
    )


def more_rows(hidden: int, indent: int = 8, noun: str = "") -> list[Text]:
    """The line below a table that was cut: how many rows are hidden, and how to see them; none if it was not."""
    return [Text(f"{'':{indent}}… {hidden} more{noun}: -N 0 shows all", "dim")] if hidden else []


def write_lines(console: Console, lines: Iterable[Text | str]) -> None:
    """Print line by line, made harmless; into a pipe or file plainly, since a million lines of it are possible."""
    if console.is_terminal:
        for line in lines:
            console.print(_harmless(line), soft_wrap=True, highlight=False, markup=False, emoji=False)
    else:
        plain = (line if isinstance(line, str) else line.plain for line in lines)
        console.file.writelines(printable(line) + "\n" for line in plain)


def _harmless(line: Text | str) -> Text | str:
    """As `printable`; styles stay on the characters that they were meant for."""
    if isinstance(line, str):
        return printable(line)
    if printable(line.plain) == line.plain:
        return line
    pieces = [printable(char) for char in line.plain]
    ends = [0, *accumulate(map(len, pieces))]
    spans = [Span(ends[one.start], ends[min(one.end, len(pieces))], one.style) for one in line.spans]
    return Text("".join(pieces), style=line.style, spans=spans)
