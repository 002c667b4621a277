"""Text from files: whatever its bytes are, it becomes a string that can be printed and written again."""

from __future__ import annotations

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
"""UTF-16 begins with one of them: what PowerShell's `>` writes."""


def decode_text(data: bytes) -> str:
    """UTF-8 or UTF-16, a byte order mark skipped, with a replacement character for what is neither.

    It is UTF-16 if it begins with that one's byte order mark.
    """
    if data.startswith(UTF_16_MARKS):
        return data.decode("utf-16", "replace")
    return data.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace")


def clean(text: str) -> str:
    """`text` without lone surrogates, which JSON can express but no encoding can write."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
