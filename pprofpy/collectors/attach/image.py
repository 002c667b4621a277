"""A program or library as it lies in a process's memory: where its functions are.

Read from memory, not from the file: a library that was replaced or deleted since, or that belongs to another mount
namespace, makes no difference, nor does stripping.

Source: the ELF specification's dynamic section; DT_GNU_HASH as glibc reads it (elf/dl-lookup.c).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from pprofpy.collectors.attach.ptrace import Memory

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 4, 5, 6, 0x6FFFFEF5
_SYMBOL = struct.Struct("<IBBHQQ")
_TYPE_INDIRECT = 10
_PAGE = 4096


class Image:
    """One loaded ELF file; `start` is where its header lies.

    Raises:
        ValueError: There is none, or it is not made for x86-64.
        OSError: Its memory cannot be read.
    """

    def __init__(self, memory: Memory, start: int) -> None:
        self._memory = memory
        header = memory.read(start, 64)
        if header[:5] != b"\x7fELF\x02" or header[18:20] != b"\x3e\0":
            raise ValueError("no ELF file for x86-64")
        offset, size, count = (*struct.unpack_from("<Q", header, 32), *struct.unpack_from("<HH", header, 54))
        table = memory.read(start + offset, size * count)
        segments = [struct.unpack_from("<IIQQQQQQ", table, at) for at in range(0, size * count, size)]
        lowest = min((segment[3] for segment in segments if segment[0] == _PT_LOAD), default=0)
        self._bias = start - lowest // _PAGE * _PAGE
        self._dynamic: dict[int, int] = {}
        for kind, _, _, address, _, _, length, _ in segments:
            if kind == _PT_DYNAMIC:
                self._dynamic = dict(struct.iter_unpack("<QQ", memory.read(self._bias + address, length // 16 * 16)))

    def functions(self, names: Iterable[str]) -> dict[str, int]:
        """The addresses of those functions that it exports."""
        found = {name: self._lookup(name.encode()) for name in names} if _DT_GNU_HASH in self._dynamic else {}
        return {name: address for name, address in found.items() if address}

    def _at(self, tag: int) -> int:
        """An address in the dynamic section: glibc has relocated it by now, other loaders and the vdso have not."""
        value = self._dynamic[tag]
        return value if value >= self._bias else value + self._bias

    def _lookup(self, name: bytes) -> int:
        """Its address, or 0. A Bloom filter says quickly where it is not."""
        table = self._at(_DT_GNU_HASH)
        buckets, first, bloom_words, shift = struct.unpack("<IIII", self._memory.read(table, 16))
        code = _gnu_hash(name)
        bloom = self._memory.word(table + 16 + code // 64 % bloom_words * 8)
        if not (bloom >> code % 64 & bloom >> (code >> shift) % 64 & 1):
            return 0
        chains = table + 16 + bloom_words * 8 + buckets * 4
        index = self._half(chains - buckets * 4 + code % buckets * 4)
        while index >= first:
            link = self._half(chains + (index - first) * 4)
            if link | 1 == code | 1 and (address := self._function(index, name)):
                return address
            if link & 1:
                break
            index += 1
        return 0

    def _function(self, index: int, name: bytes) -> int:
        """The address of symbol `index`, if it is the definition of `name`."""
        symbol = self._memory.read(self._at(_DT_SYMTAB) + index * _SYMBOL.size, _SYMBOL.size)
        offset, info, _, section, value, _ = _SYMBOL.unpack(symbol)
        found = self._memory.read(self._at(_DT_STRTAB) + offset, len(name) + 1)
        if not section or info & 15 == _TYPE_INDIRECT or found != name + b"\0":
            return 0
        return self._bias + int(value)

    def _half(self, address: int) -> int:
        return int.from_bytes(self._memory.read(address, 4), "little")


def _gnu_hash(name: bytes) -> int:
    code = 5381
    for char in name:
        code = code * 33 + char & 0xFFFFFFFF
    return code
