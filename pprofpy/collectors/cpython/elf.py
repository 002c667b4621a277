"""What an ELF file holds: its segments, and symbols; stripped files keep the dynamic ones, which programs need to run.

Source: man 5 elf; 64-bit little-endian files only.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

DYNAMIC_SYMBOLS, ALL_SYMBOLS = 11, 2
"""Kinds of sections."""

SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)

_LOAD, _UNWINDING = 1, 0x6474E550
_EXECUTABLE = 1
_PAGE = 4096
_SEGMENT_BYTES, _SECTION_BYTES = 56, 64


class NotElfError(ValueError):
    """The file is no 64-bit little-endian ELF file, or is cut short."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the file that is mapped into memory: file offset, address that the file asks for, size in the file."""

    offset: int
    address: int
    size: int
    is_code: bool


@dataclass(frozen=True, slots=True)
class Section:
    """A table in the file: what kind, where, and the number of the section that holds its names."""

    kind: int
    offset: int
    size: int
    names: int


@dataclass(frozen=True, slots=True)
class Headers:
    """How a file is divided.

    Attributes:
        segments: Its loadable segments.
        sections: All its sections.
        unwinding: The address of the index of its unwinding tables, `.eh_frame_hdr`; 0 if there are none.
    """

    segments: tuple[Segment, ...]
    sections: tuple[Section, ...]
    unwinding: int

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


@dataclass(frozen=True, slots=True)
class ElfFile:
    """What we need of one.

    Attributes:
        headers: How it is divided.
        symbols: Those of the wanted symbols that it defines -> their address, before relocation.
    """

    headers: Headers
    symbols: dict[str, int]


def read_headers(read: Callable[[int, int], bytes]) -> Headers:
    """How a file is divided.

    Args:
        read: Gives bytes of it: (offset, size) -> bytes, fewer at its end.

    Raises:
        NotElfError: It is none, or cut short.
    """
    head = read(0, 64)
    if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
        raise NotElfError("not a 64-bit little-endian ELF file")
    program_at, section_at = struct.unpack_from("<QQ", head, 32)
    program_size, program_count, section_size, section_count = struct.unpack_from("<HHHH", head, 54)
    if program_size != _SEGMENT_BYTES or (section_count and section_size != _SECTION_BYTES):
        raise NotElfError("an ELF file with headers of unknown sizes")
    try:
        programs = list(struct.iter_unpack("<IIQQQQQQ", read(program_at, program_size * program_count)))
        sections = list(struct.iter_unpack("<IIQQQQIIQQ", read(section_at, section_size * section_count)))
    except struct.error as error:
        raise NotElfError("an ELF file that is cut short") from error
    loaded = [one for one in programs if one[0] == _LOAD]
    return Headers(
        segments=tuple(Segment(one[2], one[3], one[5], bool(one[1] & _EXECUTABLE)) for one in loaded),
        sections=tuple(Section(one[1], one[4], one[5], one[6]) for one in sections),
        unwinding=next((one[3] for one in programs if one[0] == _UNWINDING), 0),
    )


def read_elf(path: Path, wanted: Collection[str]) -> ElfFile:
    """Look up symbols in a file.

    Raises:
        NotElfError: It is none.
        OSError: It cannot be read.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(data, wanted)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise NotElfError(f"{path}: {error}") from error


def _read(data: mmap.mmap, wanted: Collection[str]) -> ElfFile:
    headers = read_headers(lambda offset, size: data[offset : offset + size])
    symbols: dict[str, int] = {}
    for kind in (DYNAMIC_SYMBOLS, ALL_SYMBOLS):
        for section in headers.sections:
            if section.kind == kind:
                names = headers.sections[section.names]
                missing = [name for name in wanted if name not in symbols]
                text = data[names.offset : names.offset + names.size]
                symbols |= _symbols(data, section.offset, section.size, text, missing)
    return ElfFile(headers, symbols)


def _symbols(data: mmap.mmap, start: int, size: int, names: bytes, wanted: Collection[str]) -> dict[str, int]:
    """Those of a symbol table. A name may be the tail of a longer one: linkers store both once."""
    if not wanted:
        return {}
    table = np.frombuffer(data[start : start + size], SYMBOL)
    found = {}
    for name in wanted:
        text, place = name.encode() + b"\0", -1
        while (place := names.find(text, place + 1)) >= 0:
            matches = table["value"][(table["name"] == place) & (table["value"] != 0)]
            if len(matches):
                found[name] = int(matches[0])
    return found
