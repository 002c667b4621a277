"""A program or library: the names of its functions, and how to unwind them.

Addresses are those that the file asks for; what a process adds to them is its `bias`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from pprofpy.budget import Budget
from pprofpy.collectors.unwind.cfi import CfiTable, UnwindRow
from pprofpy.collectors.unwind.demangle import readable
from pprofpy.collectors.unwind.dwarf import CfiError
from pprofpy.elf import FunctionNames, NotElfError, read_headers, reader_of
from pprofpy.errors import ImplausibleTargetError
from pprofpy.target.named_files import TargetFile

_MOST_SEGMENTS = 256
_MOST_CODE_BYTES = 16 << 10


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
        source: The file, which the image closes, or its content.
        budget: Pays for what is kept of it. Once that is spent, functions have no names, and cannot be unwound.

    Raises:
        NotElfError: It is none, or has more segments than any.
        OSError: It cannot be read.
    """

    def __init__(self, path: str, source: TargetFile | bytes, budget: Budget | None = None) -> None:
        self.path = path
        self._budget = budget
        self._file = None if isinstance(source, bytes) else source
        self._read = reader_of(source) if isinstance(source, bytes) else source.read
        try:
            self._headers = read_headers(self._read)
            if len(self._headers.segments) > _MOST_SEGMENTS:
                raise NotElfError(f"an ELF file with {len(self._headers.segments)} segments")
        except BaseException:
            self.close()
            raise
        self._names: FunctionNames | None = None
        self._has_names = True
        self._table: CfiTable | None = None
        self._has_table = bool(self._headers.unwinding)

    def bias(self, start: int, offset: int) -> int:
        """What a process adds to addresses, given where it has executable code from this offset in the file on.

        Raises:
            NotElfError: There is no such part.
        """
        return self._headers.bias(start, offset, is_code=True)

    def row(self, address: int, budget: Budget | None = None) -> UnwindRow | None:
        """How to unwind from the instruction at `address`; None if the file does not tell.

        Args:
            address: As the file asks to be loaded.
            budget: Pays for reading it.

        Raises:
            CfiError: Its tables are damaged.
            ImplausibleTargetError: The budget is spent.
            OSError: It cannot be read.
        """
        table = self._unwinding()
        return table.row(address, budget) if table else None

    def function(self, address: int) -> NativeFunction:
        """The function around `address`."""
        names = self._functions()
        symbol = names.name(address) if names else ""
        return NativeFunction(readable(symbol), symbol, self.path)

    def code(self, address: int) -> bytes:
        """The code of the function around `address`; empty if the file does not tell where that begins and ends.

        Raises:
            CfiError: It is not in the file.
            OSError: It cannot be read.
        """
        names = self._functions()
        start, size = names.span(address) if names else (0, 0)
        return self._at(start, size) if 0 < size <= _MOST_CODE_BYTES else b""

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _functions(self) -> FunctionNames | None:
        if self._has_names and self._names is None:
            self._has_names = False
            with suppress(ImplausibleTargetError, OSError):
                self._names = FunctionNames(self._read_to_keep, self._headers)
        return self._names

    def _unwinding(self) -> CfiTable | None:
        if self._table is None and self._has_table:
            self._has_table = False
            with suppress(ImplausibleTargetError):
                table = CfiTable(self._at, self._headers.unwinding)
                self._pay(table.size)
                self._table = table
        return self._table

    def _read_to_keep(self, offset: int, size: int) -> bytes:
        self._pay(size)
        return self._read(offset, size)

    def _pay(self, size: int) -> None:
        if self._budget:
            self._budget.take(size)

    def _at(self, address: int, size: int) -> bytes:
        for segment in self._headers.segments:
            if segment.address <= address < segment.address + segment.size:
                return self._read(segment.offset + address - segment.address, size)
        raise CfiError(f"an unwinding table at {address:#x}, where the file has nothing")
