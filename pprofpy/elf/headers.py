"""How an ELF file is divided: segments, which are mapped into memory, and sections, for linkers and debuggers.

Source: man 5 elf; 64-bit little-endian files only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

Read = Callable[[int, int], bytes]
"""Gives bytes: (offset, size) -> bytes, fewer at the end. Offset and size are never negative."""

DATA, ALL_SYMBOLS, DYNAMIC_SYMBOLS = 1, 2, 11
"""Kinds of sections."""

_LOAD, _DYNAMIC, _UNWINDING = 1, 2, 0x6474E550
_EXECUTABLE = 1
_WRITABLE_SECTION, _MAPPED_SECTION, _CODE_SECTION = 1, 2, 4
_PAGE = 4096
_MOST_NAMES = 1 << 20
_SEGMENT_BYTES, _SECTION_BYTES = 56, 64
_MOST_OFFSET = 1 << 62
"""No file or process has as much: sums of two such numbers still fit into what the kernel takes."""


class NotElfError(ValueError):
    """It is no 64-bit little-endian ELF file, is cut short, or contradicts itself."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the file that is mapped into memory: file offset, address that the file asks for, size in the file."""

    offset: int
    address: int
    size: int
    is_code: bool


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the file with one purpose.

    Attributes:
        kind: DATA, ALL_SYMBOLS, DYNAMIC_SYMBOLS, ...
        offset, size: Where it lies in the file.
        names: Of a table of symbols: the number of the section that holds their names.
        is_constant: Mapped into memory, neither to be written nor to be executed.
        name_at: Where its own name lies in the section of names.
    """

    kind: int
    offset: int
    size: int
    names: int
    is_constant: bool
    name_at: int


@dataclass(frozen=True, slots=True)
class Headers:
    """How a file is divided.

    Attributes:
        machine: Which processor it is made for.
        segments: Its loadable segments.
        sections: All its sections.
        dynamic: What the loader needs to know; None if the file is linked statically.
        unwinding: The address of the index of its unwinding tables, `.eh_frame_hdr`; 0 if there are none.
        names: The number of the section that holds the names of sections.
    """

    machine: int
    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    dynamic: Segment | None
    unwinding: int
    names: int

    def bias(self, start: int, offset: int, *, is_code: bool = False) -> int:
        """What to add to a symbol's address in a process.

        Args:
            start: Where a part of the file is mapped.
            offset: Which part: its offset in the file.
            is_code: It is mapped to be executed. One page of the file may hold the end of a segment and the next one.

        Raises:
            NotElfError: No segment lies there.
        """
        for segment in self.segments:
            first = segment.offset // _PAGE * _PAGE
            if first <= offset < segment.offset + max(segment.size, 1) and segment.is_code >= is_code:
                return start - offset + segment.offset - segment.address
        raise NotElfError(f"no segment at offset {offset}")

    def section(self, kind: int) -> Section | None:
        """The first section of a kind. A file has at most one table of symbols of each kind. Source: man 5 elf."""
        return next((section for section in self.sections if section.kind == kind), None)


def read_headers(read: Read, *, with_sections: bool = True) -> Headers:
    """How a file is divided.

    Args:
        read: Gives bytes of it.
        with_sections: Also its sections; memory does not have them.

    Raises:
        NotElfError: It is none, or cut short.
    """
    head = read(0, 64)
    if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
        raise NotElfError("not a 64-bit little-endian ELF file")
    (machine,) = struct.unpack_from("<H", head, 18)
    program_at, section_at = struct.unpack_from("<QQ", head, 32)
    program_size, program_count, section_size, section_count, names = struct.unpack_from("<HHHHH", head, 54)
    if program_size != _SEGMENT_BYTES or (section_count and section_size != _SECTION_BYTES):
        raise NotElfError("an ELF file with headers of unknown sizes")
    programs = _table(read, program_at, program_count, "<IIQQQQQQ")
    sections = _table(read, section_at, section_count, "<IIQQQQIIQQ") if with_sections else []
    dynamic = next((one for one in programs if one[0] == _DYNAMIC), None)
    return Headers(
        machine=machine,
        segments=tuple(_segment(one) for one in programs if one[0] == _LOAD),
        sections=tuple(map(_section, sections)),
        dynamic=_segment(dynamic) if dynamic else None,
        unwinding=_checked(next((one[3] for one in programs if one[0] == _UNWINDING), 0)),
        names=names,
    )


def named_section(read: Read, headers: Headers, name: bytes) -> Section | None:
    """The section with a name, such as `b".text"`; None if there is none."""
    if headers.names >= len(headers.sections):
        return None
    table, wanted = headers.sections[headers.names], name + b"\0"
    names = read(table.offset, min(table.size, _MOST_NAMES))
    return next((one for one in headers.sections if names.startswith(wanted, one.name_at)), None)


def reader_of(content: bytes) -> Read:
    """Reads from bytes."""
    return lambda offset, size: content[offset : offset + size]


def _table(read: Read, offset: int, count: int, layout: str) -> list[tuple[int, ...]]:
    """Headers of one sort. The file says in 16 bits how many there are, so they are at most 4 MB."""
    size = count * struct.calcsize(layout)
    content = read(_checked(offset), size)
    if len(content) != size:
        raise NotElfError("an ELF file that is cut short")
    return list(struct.iter_unpack(layout, content))


def _segment(header: tuple[int, ...]) -> Segment:
    _, flags, offset, address, _, size, *_ = header
    return Segment(_checked(offset), _checked(address), _checked(size), bool(flags & _EXECUTABLE))


def _section(header: tuple[int, ...]) -> Section:
    name_at, kind, flags, _, offset, size, names, *_ = header
    is_constant = kind == DATA and flags & (_WRITABLE_SECTION | _MAPPED_SECTION | _CODE_SECTION) == _MAPPED_SECTION
    return Section(kind, _checked(offset), _checked(size), names, is_constant, name_at)


def _checked(number: int) -> int:
    if number > _MOST_OFFSET:
        raise NotElfError("an ELF file with an offset or address beyond all bounds")
    return number
