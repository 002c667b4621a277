"""Symbols of an ELF file, stripped ones included: the dynamic ones, which a program needs to run.

Source: man 5 elf; 64-bit little-endian files only.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_DYNAMIC_SYMBOLS, _ALL_SYMBOLS = 11, 2
_LOAD = 1
_PAGE = 4096
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)


class NotElfError(ValueError):
    """The file is no 64-bit little-endian ELF file, or is cut short."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the file that is mapped into memory: file offset, address that the file asks for, size in the file."""

    offset: int
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class ElfFile:
    """What we need of one.

    Attributes:
        segments: Its loadable segments.
        symbols: Those of the wanted symbols that it defines -> their address, before relocation.
    """

    segments: tuple[Segment, ...]
    symbols: dict[str, int]

    def bias(self, start: int, offset: int) -> int:
        """What to add to a symbol's address in a process.

        Args:
            start: Where a part of the file is mapped.
            offset: Which part: its offset in the file.

        Raises:
            NotElfError: No segment lies there.
        """
        for segment in self.segments:
            first = segment.offset // _PAGE * _PAGE
            if first <= offset < segment.offset + max(segment.size, 1):
                return start - offset + segment.offset - segment.address
        raise NotElfError(f"no segment at offset {offset}")


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
    if data[:6] != b"\x7fELF\x02\x01":
        raise NotElfError("not a 64-bit little-endian ELF file")
    program_at, section_at = struct.unpack_from("<QQ", data, 32)
    program_size, program_count, section_size, section_count = struct.unpack_from("<HHHH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, program_at + i * program_size) for i in range(program_count)]
    segments = tuple(Segment(head[2], head[3], head[5]) for head in headers if head[0] == _LOAD)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, section_at + i * section_size) for i in range(section_count)]
    symbols: dict[str, int] = {}
    for kind in (_DYNAMIC_SYMBOLS, _ALL_SYMBOLS):
        for section in sections:
            if section[1] == kind:
                names = sections[section[6]]
                missing = [name for name in wanted if name not in symbols]
                symbols |= _symbols(data, section[4], section[5], data[names[4] : names[4] + names[5]], missing)
    return ElfFile(segments, symbols)


def _symbols(data: mmap.mmap, start: int, size: int, names: bytes, wanted: Collection[str]) -> dict[str, int]:
    """Those of a symbol table. A name may be the tail of a longer one: linkers store both once."""
    if not wanted:
        return {}
    table = np.frombuffer(data[start : start + size], _SYMBOL)
    found = {}
    for name in wanted:
        text, place = name.encode() + b"\0", -1
        while (place := names.find(text, place + 1)) >= 0:
            matches = table["value"][(table["name"] == place) & (table["value"] != 0)]
            if len(matches):
                found[name] = int(matches[0])
    return found
