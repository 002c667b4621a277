"""Tables of our own: each column of values has one unit, and names take the room that is left.

On a terminal, names lose their middle where a line would wrap. A pipe or a file has no width: there they are whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from pprofpy.reports.text import shorten
from pprofpy.text import printable
from pprofpy.units import format_column, format_share

GAP = "  "
_NARROWEST_NAME = 8
_WIDEST_PADDING = 60
"""A name that is longer than this moves what stands behind it, rather than all other rows."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        cells: One a row.
        is_name: Its cells are names: aligned to the left, and cut where there is no room for them.
        styles: One a row; empty for none.
    """

    title: str
    cells: Sequence[str]
    is_name: bool = False
    styles: Sequence[str] = ()

    @property
    def width(self) -> int:
        """How wide it wants to be, in characters of a terminal."""
        return max(map(cell_len, (self.title, *self.cells)))


def numbers(title: str, values: Iterable[int | str]) -> Column:
    """Make a column of counts, or whatever has no unit."""
    return Column(title, [str(value) for value in values])


def quantities(title: str, values: Sequence[int], unit: str = "ns") -> Column:
    """Make a column of values in the one unit that suits the largest of them. `unit`: theirs."""
    return Column(title, format_column(values, unit))


def shares(title: str, values: Iterable[int], total: int) -> Column:
    """Make a column of percentages."""
    return Column(title, [format_share(value, total) for value in values])


def names(title: str, texts: Iterable[str]) -> Column:
    """Make a column of what others have named."""
    return Column(title, [printable(text) for text in texts], is_name=True)


def layout(columns: Sequence[Column], console: Console, indent: int = 1) -> list[Text]:
    """Set a table.

    Args:
        columns: From left to right, each with as many cells.
        console: Where it will be printed: a terminal has a width.
        indent: Leave so much room at the left.

    Returns:
        The heading, and one line a row.
    """
    room = console.width - indent - len(GAP) * (len(columns) - 1) if console.is_terminal else 0
    widths = _cut_to(room, columns) if room else [min(column.width, _WIDEST_PADDING) for column in columns]
    rows = (_row(columns, widths, number, is_cut=bool(room)) for number in range(len(columns[0].cells)))
    heading = _row([replace(one, cells=[one.title], styles=()) for one in columns], widths, 0, is_cut=bool(room))
    heading.style = "bold"
    lines = [heading, *rows]
    for line in lines:
        line.pad_left(indent)
        line.rstrip()
    return lines


def _row(columns: Sequence[Column], widths: Sequence[int], number: int, *, is_cut: bool) -> Text:
    text = Text()
    for column, width in zip(columns, widths, strict=True):
        cell = column.cells[number]
        cell = shorten(cell, width) if is_cut and column.is_name else cell
        text.append(GAP if text else "")
        text.append(_aligned(cell, width, column), column.styles[number] if column.styles else None)
    return text


def _aligned(cell: str, width: int, column: Column) -> str:
    padding = " " * (width - cell_len(cell))
    return cell + padding if column.is_name else padding + cell


def _cut_to(room: int, columns: Sequence[Column]) -> list[int]:
    """The width of each column, so that a line fits: the widest names give way first."""
    fixed = sum(column.width for column in columns if not column.is_name)
    cap = _NARROWEST_NAME
    wanted = sorted(column.width for column in columns if column.is_name)
    left = room - fixed
    for place, width in enumerate(wanted):
        cap = max(left // (len(wanted) - place), _NARROWEST_NAME)
        if width > cap:
            break
        left -= width
    return [min(column.width, cap) if column.is_name else column.width for column in columns]
