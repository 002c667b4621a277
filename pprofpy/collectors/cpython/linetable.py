"""From an instruction to the line that it belongs to, for the line tables of each version.

A table is whatever the target says, up to a megabyte of it (`code.replace(co_linetable=...)`): it is decoded in one go,
in time and memory that grow with its length, and once, however many of its instructions are asked for.

Source: Objects/lnotab_notes.txt (until 3.9), PEP 626 and Objects/lnotab_notes.txt (3.10), Objects/locations.md and
InternalDocs/code_objects.md (from 3.11 on).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from pprofpy.collectors.cpython.versions import LineTable

MOST_LINES = 1 << 31
"""Lines are below this, as for the interpreter itself, whatever a table adds up to."""

_MOST_KEPT_BYTES = 32 << 20
_ENTRY_BYTES = 100

_Numbers = np.ndarray[Any, np.dtype[np.int64]]


class _Lines(NamedTuple):
    """A decoded table: places below `ends[i]` belong to `lines[i]`; those behind the last end to the last line."""

    ends: np.ndarray[Any, np.dtype[np.int32]]
    lines: np.ndarray[Any, np.dtype[np.int32]]

    @property
    def size(self) -> int:
        return self.ends.nbytes + self.lines.nbytes


class LineTables:
    """Decoded tables, those that were used last, up to a total size.

    Args:
        form: Of all of them.
    """

    def __init__(self, form: LineTable) -> None:
        self._decode, self._unit = _DECODERS[form]
        self._known: OrderedDict[tuple[bytes, int], _Lines] = OrderedDict()
        self._kept_bytes = 0

    def line(self, table: bytes, first_line: int, instruction: int) -> int:
        """The line of an instruction; that of the function's head where the table does not say.

        Args:
            table: `co_lnotab` until 3.9, `co_linetable` from 3.10 on.
            first_line: `co_firstlineno`.
            instruction: Its number: in bytes until 3.9, in units of two bytes from 3.10 on; negative if none has run.
        """
        if instruction < 0 or not table:
            return _clamped(first_line)
        known = self._decoded(table, first_line)
        place = int(np.searchsorted(known.ends, instruction * self._unit, side="right"))
        return int(known.lines[min(place, len(known.lines) - 1)]) if len(known.lines) else _clamped(first_line)

    def _decoded(self, table: bytes, first_line: int) -> _Lines:
        key = table, first_line
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        found = self._known[key] = self._decode(table, _clamped(first_line))
        self._kept_bytes += _size(table, found)
        while self._kept_bytes > _MOST_KEPT_BYTES and len(self._known) > 1:
            (oldest, _), lines = self._known.popitem(last=False)
            self._kept_bytes -= _size(oldest, lines)
        return found


def _size(table: bytes, lines: _Lines) -> int:
    return len(table) + lines.size + _ENTRY_BYTES


def line_of(form: LineTable, table: bytes, first_line: int, instruction: int) -> int:
    """One line of one table; see LineTables.line."""
    return LineTables(form).line(table, first_line, instruction)


def units_covered(table: bytes) -> int:
    """How many units of code a table of ENTRIES is for: all of its code object's, no more and no fewer."""
    return sum((byte & 7) + 1 for byte in table if byte >= 128)


def _lnotab(table: bytes, first_line: int) -> _Lines:
    """Pairs: bytes of code, and by how much the line number changes after them."""
    lengths, steps = _pairs(table)
    lines = np.concatenate([[first_line], first_line + np.cumsum(steps)])
    return _packed(np.cumsum(lengths), lines)


def _ranges(table: bytes, first_line: int) -> _Lines:
    """Pairs: length in bytes, and the change of the line before it; -128 for code that belongs to no line."""
    lengths, steps = _pairs(table)
    lines = first_line + np.cumsum(np.where(steps == -128, 0, steps))
    return _packed(np.cumsum(lengths), _carried(lines, steps == -128, first_line))


def _pairs(table: bytes) -> tuple[_Numbers, _Numbers]:
    raw = np.frombuffer(table, np.uint8)[: len(table) // 2 * 2]
    return raw[::2].astype(np.int64), raw[1::2].view(np.int8).astype(np.int64)


def _entries(table: bytes, first_line: int) -> _Lines:
    """Entries, which begin with a byte whose top bit is set: their kind, and how many units of code they cover.

    Kinds 0 to 9 stay on the line, 10 to 12 step on by as many lines, 13 and 14 say by how much, 15 has no line.
    """
    raw = np.frombuffer(table, np.uint8)
    is_start = raw >= 128
    is_start[0] = True
    starts = np.flatnonzero(is_start)
    kinds = raw[starts] >> 3 & 15
    steps = np.zeros(len(starts), np.int64)
    short = (kinds >= 10) & (kinds <= 12)
    steps[short] = kinds[short].astype(np.int64) - 10
    long = np.flatnonzero((kinds == 13) | (kinds == 14))
    steps[long] = _signed_varints(raw, starts[long] + 1)
    lines = first_line + np.cumsum(steps)
    return _packed(np.cumsum((raw[starts] & 7).astype(np.int64) + 1), _carried(lines, kinds == 15, first_line))


def _signed_varints(raw: np.ndarray[Any, np.dtype[np.uint8]], places: _Numbers) -> _Numbers:
    """The numbers at these places: six bits a byte, the lowest first; the lowest of all is the sign.

    The interpreter's own lines have 31 bits, which take six bytes; what forged numbers have beyond them is ignored.
    """
    values = np.zeros(len(places), np.int64)
    active = np.ones(len(places), bool)
    for shift in range(0, 36, 6):
        active = active & (places < len(raw))
        bytes_there = raw[np.where(active, places, 0)].astype(np.int64)
        active = active & (bytes_there < 128)
        values += np.where(active, (bytes_there & 63) << shift, 0)
        active = active & (bytes_there & 64 > 0)
        places = places + 1
    return np.where(values & 1, -(values >> 1), values >> 1)


def _carried(lines: _Numbers, is_nowhere: np.ndarray[Any, np.dtype[np.bool_]], first_line: int) -> _Numbers:
    """Code that belongs to no line counts to the one before."""
    last = np.maximum.accumulate(np.where(is_nowhere, -1, np.arange(len(lines))))
    return np.where(last < 0, first_line, lines[np.maximum(last, 0)])


def _packed(ends: _Numbers, lines: _Numbers) -> _Lines:
    return _Lines(ends.astype(np.int32), np.clip(lines, 0, MOST_LINES - 1).astype(np.int32))


def _clamped(line: int) -> int:
    return min(max(line, 0), MOST_LINES - 1)


_DECODERS = {
    LineTable.LNOTAB: (_lnotab, 1),
    LineTable.RANGES: (_ranges, 2),
    LineTable.ENTRIES: (_entries, 1),
}
"""How each form is decoded, and how many of its units an instruction's number counts as one."""
