"""A stack in one line of a table, and as data."""

from __future__ import annotations

import re
from typing import Any

from pprofpy.model.profile import Frame, Stack
from pprofpy.reports.origin import is_own
from pprofpy.text import printable

WIDTH = 66

_THREAD_START = re.compile(r"threading\.(Thread\.)?(run|_bootstrap|_bootstrap_inner)$")


def line(frame: Frame) -> str:
    """As in `shop.reserve_stock:158`."""
    return f"{frame.function.name}:{frame.line}" if frame.line else frame.function.name


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
