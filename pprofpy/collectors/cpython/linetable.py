"""From an instruction to the line that it belongs to, for the line tables of each version.

Source: Objects/lnotab_notes.txt (until 3.9), PEP 626 and Objects/lnotab_notes.txt (3.10), Objects/locations.md and
InternalDocs/code_objects.md (from 3.11 on).
"""

from __future__ import annotations

from collections.abc import Iterator


def line_of(version: tuple[int, int], table: bytes, first_line: int, instruction: int) -> int:
    """The line of an instruction; that of the function's head where the table does not say.

    Args:
        version: (major, minor).
        table: `co_lnotab` until 3.9, `co_linetable` from 3.10 on.
        first_line: `co_firstlineno`.
        instruction: Its number: in bytes until 3.9, in units of two bytes from 3.10 on; negative if none has run.
    """
    if instruction < 0:
        return first_line
    if version < (3, 10):
        return _line_of_lnotab(table, first_line, instruction)
    if version < (3, 11):
        return _last_line(_lines_of_3_10(table, first_line), first_line, 2 * instruction)
    return _last_line(_lines_of_3_11(table, first_line), first_line, instruction)


def _line_of_lnotab(table: bytes, line: int, instruction: int) -> int:
    """Pairs: bytes of code, and by how much the line number changes after them."""
    place = 0
    for length, step in zip(table[::2], table[1::2], strict=False):
        place += length
        if place > instruction:
            break
        line += _signed(step)
    return line


def _last_line(ranges: Iterator[tuple[int, int | None]], first_line: int, place: int) -> int:
    """The line at `place`; for code that belongs to no line, the one before."""
    line = first_line
    for end, here in ranges:
        line = line if here is None else here
        if place < end:
            return line
    return line


def _lines_of_3_10(table: bytes, line: int) -> Iterator[tuple[int, int | None]]:
    """(end in bytes, line) of each range, in order. Pairs: length, and the change of the line before it."""
    end = 0
    for length, step in zip(table[::2], table[1::2], strict=False):
        end += length
        if step == 128:
            yield end, None
            continue
        line += _signed(step)
        yield end, line


def _lines_of_3_11(table: bytes, line: int) -> Iterator[tuple[int, int | None]]:
    """(end in code units, line) of each entry, in order.

    An entry begins with a byte whose top bit is set: its kind, and how many units it covers. Kinds 0 to 9 stay on the
    line, 10 to 12 step on by as many lines, 13 and 14 say by how much, 15 has no line.
    """
    place, end = 0, 0
    while place < len(table):
        kind, length = table[place] >> 3 & 15, (table[place] & 7) + 1
        place += 1
        if kind in (13, 14):
            step, place = _varint(table, place)
            line += -(step >> 1) if step & 1 else step >> 1
        elif 10 <= kind <= 12:
            line += kind - 10
        while place < len(table) and not table[place] & 128:
            place += 1
        end += length
        yield end, None if kind == 15 else line


def _varint(table: bytes, place: int) -> tuple[int, int]:
    """A number in six-bit pieces, lowest first, and the place after it."""
    value = shift = 0
    while place < len(table):
        byte = table[place]
        place += 1
        value |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            break
    return value, place


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte
