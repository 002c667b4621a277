"""Text that others chose, made fit for one line of a terminal, and for a file in UTF-8."""

from __future__ import annotations

import unicodedata

_HARMFUL_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Control and format characters (escape sequences, direction overrides), surrogates, line and paragraph separators."""


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
