"""A program or library: the names of its functions, and how to unwind them.

Addresses are those that the file asks for; what a process adds to them is its `bias`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pprofpy.collectors.cpython.elf import ALL_SYMBOLS, DYNAMIC_SYMBOLS, SYMBOL, read_headers
from pprofpy.collectors.native.cfi import CfiError, CfiTable, Row
from pprofpy.collectors.native.demangle import readable

_FUNCTION = 2
"""A type of symbol. Those of indirect functions name what chooses an implementation, not the implementation."""

_GLOBAL = 1


@dataclass(frozen=True, slots=True)
class NativeFunction:
    """A native function.

    Attributes:
        name: For people; empty if the file does not tell.
        symbol: For linkers.
        path: The file that it is in.
    """

    name: str
    symbol: str
    path: str


class Image:
    """An ELF file, of which only that is read what is asked for.

    Args:
        path: What its functions are said to be in.
        source: Where it can be read, or its content.

    Raises:
        NotElfError: It is none.
        OSError: It cannot be read.
    """

    def __init__(self, path: str, source: Path | bytes) -> None:
        self.path = path
        self._content = source if isinstance(source, bytes) else b""
        self._file = -1 if isinstance(source, bytes) else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        self._size = len(source) if isinstance(source, bytes) else os.fstat(self._file).st_size
        try:
            self._headers = read_headers(self._read)
        except BaseException:
            self.close()
            raise
        self._symbols: _Symbols | None = None
        self._table: CfiTable | None = None
        self._has_table = bool(self._headers.unwinding)

    def bias(self, start: int, offset: int) -> int:
        """What a process adds to addresses, given where it has executable code from this offset in the file on.

        Raises:
            NotElfError: There is no such part.
        """
        return self._headers.bias(start, offset, is_code=True)

    def row(self, address: int) -> Row | None:
        """How to unwind from the instruction at `address`; None if the file does not tell.

        Raises:
            CfiError: Its tables are damaged.
        """
        table = self._unwinding()
        return table.row(address) if table else None

    def function(self, address: int) -> NativeFunction:
        """The function around `address`."""
        if self._symbols is None:
            self._symbols = self._read_symbols()
        symbol = self._symbols.name(address)
        return NativeFunction(readable(symbol), symbol, self.path)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _unwinding(self) -> CfiTable | None:
        if self._table is None and self._has_table:
            self._has_table = False
            self._table = CfiTable(self._at, self._headers.unwinding)
        return self._table

    def _read(self, offset: int, size: int) -> bytes:
        """Read rather than mapped: a file that is cut short meanwhile would kill whoever has it mapped."""
        if self._file < 0:
            return self._content[offset : offset + size]
        return os.pread(self._file, max(0, min(size, self._size - offset)), offset)

    def _at(self, address: int, size: int) -> bytes:
        for segment in self._headers.segments:
            if segment.address <= address < segment.address + segment.size:
                return self._read(segment.offset + address - segment.address, size)
        raise CfiError(f"an unwinding table at {address:#x}, where the file has nothing")

    def _read_symbols(self) -> _Symbols:
        parts = []
        for section in self._headers.sections:
            if section.kind in (ALL_SYMBOLS, DYNAMIC_SYMBOLS) and section.names < len(self._headers.sections):
                names = self._headers.sections[section.names]
                content = self._read(section.offset, section.size)
                table = np.frombuffer(content[: len(content) // SYMBOL.itemsize * SYMBOL.itemsize], SYMBOL)
                parts.append((table, self._read(names.offset, names.size)))
        return _Symbols(parts)


class _Symbols:
    """The functions of symbol tables, each table with the text that holds its names."""

    def __init__(self, parts: list[tuple[np.ndarray, bytes]]) -> None:
        tables, self._texts = [], b""
        for table, text in parts:
            functions = table[
                (table["info"] & 15 == _FUNCTION) & (table["section"] != 0) & (table["value"] != 0)
            ].copy()
            functions["name"] += len(self._texts)
            self._texts += text + b"\0"
            tables.append(functions)
        every = np.concatenate(tables) if tables else np.zeros(0, SYMBOL)
        self._table = every[np.argsort(every["value"], kind="stable")]

    def name(self, address: int) -> str:
        """Of the function around `address`, the shortest of its global names; empty if there is none."""
        starts = self._table["value"]
        end = int(np.searchsorted(starts, np.uint64(address), side="right"))
        if not end:
            return ""
        first = int(np.searchsorted(starts, starts[end - 1]))
        around = (one for one in self._table[first:end] if not one["size"] or address < one["value"] + one["size"])
        found = [(one["info"] >> 4 != _GLOBAL, self._text(int(one["name"]))) for one in around]
        return min(found, key=lambda pair: (pair[0], len(pair[1]), pair[1]))[1] if found else ""

    def _text(self, start: int) -> str:
        return self._texts[start : self._texts.find(b"\0", start)].decode("utf-8", "replace")
