"""A stack in one line of a table, and as data."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.profile import Frame, Stack
from pprofpy.reports.origin import is_own
from pprofpy.reports.text import NARROWEST_NAME, shorten
from pprofpy.text import printable

WIDTH = 66
"""What a stack may take where there is no terminal, or a wide one."""

_OTHER_COLUMNS = 36
"""What stands before a stack in a table, about."""

_THREAD_START = re.compile(r"threading\.(Thread\.)?(run|_bootstrap|_bootstrap_inner)$")


def line(frame: Frame) -> str:
    """As in `shop.reserve_stock:158`."""
    return f"{frame.function.name}:{frame.line}" if frame.line else frame.function.name


def stack_width(console: Console, taken: int = _OTHER_COLUMNS) -> int:
    """How wide a stack may be. `taken`: what else stands in its line."""
    return min(WIDTH, max(console.width - taken, NARROWEST_NAME)) if console.is_terminal else WIDTH


def below(what: str, stack: Stack, console: Console, indent: int = 12) -> Text:
    """A second stack, in a line below that of the first: `ended by  shop.Desk.do_POST:122`."""
    lead = f"{'':{indent}}{what}  "
    width = stack_width(console, len(lead))
    text = one_line(stack, width)
    return Text(lead + (shorten(text, width) if console.is_terminal else text), "dim")


def one_line(stack: Stack, width: int = WIDTH) -> str:
    """A stack from its leaf on, as far as there is room, but always the user's own line that is next to the leaf.

    How Python starts threads is left out.
    """
    frames = [frame for frame in stack if not _THREAD_START.match(frame.function.name)] or list(stack)
    first_own = next((index for index, frame in enumerate(frames) if is_own(frame)), 0)
    texts = [printable(line(frame)) for frame in frames]
    shown = len(texts)
    while shown > 1 and len(" < ".join(texts[:shown])) > width:
        shown -= 1
    text = " < ".join(texts[:shown])
    if shown == len(texts):
        return text
    return f"{text} …" if first_own < shown else f"{text} … {texts[first_own]}"


def stack_json(stack: Stack) -> list[dict[str, Any]]:
    """Leaf-first."""
    return [{"function": one.function.name, "file": one.function.filename, "line": one.line} for one in stack]
