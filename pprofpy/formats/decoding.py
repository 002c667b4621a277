"""Text from files: whatever its bytes are, it becomes a string that can be printed and written again."""

from __future__ import annotations

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def decode_text(data: bytes) -> str:
    """UTF-8, a byte order mark skipped, with a replacement character for what is none."""
    return data.removeprefix(_BYTE_ORDER_MARK).decode("utf-8", "replace")


def clean(text: str) -> str:
    """`text` without lone surrogates, which JSON can express but no encoding can write."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
