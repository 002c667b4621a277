"""Text that others chose, made fit for one line of a terminal, and for a file in UTF-8."""

from __future__ import annotations

import math
import re
import unicodedata

_HARMFUL_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control and format characters (escape sequences, direction overrides), surrogates, line and paragraph separators."""

_ESCAPES = re.compile(r"\\\\|\\ud[89ab]..\\ud[c-f]..|(\\ud[89a-f]..)")
"""In JSON: a backslash, a character beyond U+FFFF, and (group 1) half of one."""


def printable(text: str) -> str:
    r"""`text` with everything that could steer a terminal or break a line written out, as `\x1b` or `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _HARMFUL_CATEGORIES else char
        for char in text
    )


def text_of(content: bytes) -> str:
    r"""Bytes without a promised encoding as text that any file can hold: what is not UTF-8 is spelt out (`\xff`)."""
    return content.decode("utf-8", "backslashreplace")


def without_numbers(name: str) -> str:
    """Put `*` for each number in a thread's name: `job-7` and `job-8` become `job-*`."""
    return re.sub(r"\d+", "*", name)


def counted(number: int, noun: str) -> str:
    """Words for a number of things: `1 thread`, `1,001 threads`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def printable_lines(text: str) -> str:
    """As `printable`, for text of several lines: the line breaks are meant."""
    return "\n".join(map(printable, text.split("\n")))


def json_text(data: object, *, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    """Data as JSON in plain ASCII for every parser: no lone surrogate (U+FFFD instead), no NaN (null instead)."""
    import json  # half of what this module takes to import

    try:
        text = json.dumps(data, indent=indent, separators=separators, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(data), indent=indent, separators=separators, allow_nan=False)
    text = text.replace("\x7f", "\\u007f")
    return _ESCAPES.sub(lambda match: "\\ufffd" if match[1] else match[0], text) if "\\ud" in text else text


def _finite(data: object) -> object:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
