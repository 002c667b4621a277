"""The symbols of an ELF file: where those with a name are, and what is at an address.

Stripped files keep the dynamic ones, which programs need to run.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from pprofpy.elf.headers import ALL_SYMBOLS, DYNAMIC_SYMBOLS, Headers, NotElfError, Read

_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_FUNCTION = 2
"""A type of symbol. Those of indirect functions name what chooses an implementation, not the implementation."""
_GLOBAL = 1

_MOST_TABLE_BYTES, _MOST_NAME_BYTES = 32 << 20, 64 << 20
"""A table of 1.4 million symbols, and their names: twice of what the largest libraries have."""
_MOST_HOMONYMS = 64
_MOST_ALIASES = 64
_LONGEST_NAME = 16 << 10


def find_symbols(read: Read, headers: Headers, wanted: Collection[str]) -> dict[str, int]:
    """Those of the wanted symbols that a file defines -> their address, before relocation.

    Raises:
        NotElfError: Its tables are cut short, or larger than any.
        OSError: It cannot be read.
    """
    found: dict[str, int] = {}
    for kind in (DYNAMIC_SYMBOLS, ALL_SYMBOLS):
        missing = [name for name in wanted if name not in found]
        if missing:
            table, text = _read_table(read, headers, kind)
            found |= {name: value for name in missing if (value := _value(table, text, name.encode() + b"\0"))}
    return found


def _value(table: NDArray[np.void], names: bytes, name: bytes) -> int:
    """The address of a symbol, 0 if there is none. A name may be the tail of a longer one: linkers store both once."""
    place = -1
    for _ in range(_MOST_HOMONYMS):
        place = names.find(name, place + 1)
        if place < 0:
            return 0
        matches = table["value"][(table["name"] == place) & (table["value"] != 0)]
        if len(matches):
            return int(matches[0])
    return 0


def _read_table(read: Read, headers: Headers, kind: int) -> tuple[NDArray[np.void], bytes]:
    """The table of symbols of a kind, and the text that holds their names; empty if the file has none."""
    section = headers.section(kind)
    if section is None:
        return np.zeros(0, _SYMBOL), b""
    if section.names >= len(headers.sections):
        raise NotElfError("an ELF file whose symbols have no names")
    names = headers.sections[section.names]
    if section.size > _MOST_TABLE_BYTES or names.size > _MOST_NAME_BYTES:
        raise NotElfError("an ELF file with more symbols than any")
    content, text = read(section.offset, section.size), read(names.offset, names.size)
    if len(content) != section.size or len(text) != names.size:
        raise NotElfError("an ELF file that is cut short")
    return np.frombuffer(content[: len(content) // _SYMBOL.itemsize * _SYMBOL.itemsize], _SYMBOL), text


class FunctionNames:
    """The functions of a file. Tables that cannot be read count as empty.

    Raises:
        OSError: The file cannot be read.
    """

    def __init__(self, read: Read, headers: Headers) -> None:
        tables, self._texts = [], b""
        for kind in (ALL_SYMBOLS, DYNAMIC_SYMBOLS):
            try:
                table, text = _read_table(read, headers, kind)
            except NotElfError:
                continue
            is_function = (table["info"] & 15 == _FUNCTION) & (table["section"] != 0) & (table["value"] != 0)
            functions = table[is_function & (table["name"] < len(text))].copy()
            functions["name"] += len(self._texts)
            self._texts += text + b"\0"
            tables.append(functions)
        every = np.concatenate(tables) if tables else np.zeros(0, _SYMBOL)
        self._table = every[np.argsort(every["value"], kind="stable")]

    def name(self, address: int) -> str:
        """Of the function around `address`, the shortest of its global names; empty if there is none."""
        if not 0 <= address < 1 << 64:
            return ""
        starts = self._table["value"]
        end = int(np.searchsorted(starts, np.uint64(address), side="right"))
        if not end:
            return ""
        first = max(int(np.searchsorted(starts, starts[end - 1])), end - _MOST_ALIASES)
        around = [one for one in self._table[first:end].tolist() if not one[5] or address < one[4] + one[5]]
        found = [(info >> 4 != _GLOBAL, self._text(name)) for name, info, *_ in around]
        return min(found, key=lambda pair: (pair[0], len(pair[1]), pair[1]))[1] if found else ""

    def span(self, address: int) -> tuple[int, int]:
        """Where the function around `address` begins, and its size; (0, 0) if there is none whose size is known."""
        if not 0 <= address < 1 << 64:
            return 0, 0
        before = self._table[: int(np.searchsorted(self._table["value"], np.uint64(address), side="right"))]
        for _, _, _, _, start, size in before[-_MOST_ALIASES:].tolist()[::-1]:
            if address < start + size:
                return start, size
        return 0, 0

    def _text(self, start: int) -> str:
        end = self._texts.find(b"\0", start, start + _LONGEST_NAME)
        return self._texts[start : end if end >= 0 else start + _LONGEST_NAME].decode("utf-8", "replace")
