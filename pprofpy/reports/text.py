"""Lines of text for a terminal or a pipe: hostile names made harmless, long ones cut only where somebody watches."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from pprofpy.text import printable as printable

NARROWEST_NAME = 24
"""Names are not cut below this, however narrow the terminal: a table that wraps beats one that says nothing."""


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` characters: what is too long loses its middle, since both ends of a name matter."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"


def name_width(console: Console, taken: int) -> int:
    """How many characters of a line are left for a name; no limit where nobody watches."""
    return max(console.width - taken, NARROWEST_NAME) if console.is_terminal else 1 << 30


def heat(value: int, total: int) -> str:
    """The style of a value by its share of the total: only what matters stands out."""
    share = abs(value / total) if total else 0.0
    return "bold red" if share >= 0.25 else "yellow" if share >= 0.05 else "dim" if share < 0.005 else ""


def write_lines(console: Console, lines: Iterable[Text | str]) -> None:
    """Print line by line; into a pipe or file plainly, since a million lines of it are possible."""
    if console.is_terminal:
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False, emoji=False)
    else:
        console.file.writelines((line if isinstance(line, str) else line.plain) + "\n" for line in lines)
