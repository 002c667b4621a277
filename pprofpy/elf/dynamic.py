"""A program or library as it lies in a process's memory: where its functions are.

Read from memory, not from the file: a library that was replaced or deleted since, or that belongs to another mount
namespace, makes no difference, nor does stripping.

Source: the ELF specification's dynamic section; DT_GNU_HASH as glibc reads it (elf/dl-lookup.c).
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from pprofpy.arch import here
from pprofpy.elf.headers import NotElfError, Read, read_headers

_DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 5, 6, 0x6FFFFEF5
_SYMBOL = struct.Struct("<IBBHQQ")
_TYPE_INDIRECT = 10
_PAGE = 4096
_MOST_DYNAMIC_BYTES = 16 << 10
"""A thousand entries; the largest programs have some hundred, most of them the libraries that they need."""
_LONGEST_CHAIN = 4096
_MOST_ADDRESS = 1 << 62


class LoadedElf:
    """One loaded ELF file.

    Args:
        read: Reads the process's memory: (address, size) -> bytes.
        start: Where the file's header lies.

    Raises (all methods):
        NotElfError: There is none, it is made for another machine, or contradicts itself.
        OSError: The process's memory cannot be read (any more).
    """

    def __init__(self, read: Read, start: int) -> None:
        self._memory = read
        headers = read_headers(lambda offset, size: self._read(start + offset, size), with_sections=False)
        if headers.machine != here().elf_machine:
            raise NotElfError(f"an ELF file that is not made for {here().title}")
        lowest = min((segment.address for segment in headers.segments), default=0)
        self._bias = start - lowest // _PAGE * _PAGE
        self._dynamic: dict[int, int] = {}
        if headers.dynamic:
            size = min(headers.dynamic.size, _MOST_DYNAMIC_BYTES) // 16 * 16
            self._dynamic = dict(struct.iter_unpack("<QQ", self._read(self._bias + headers.dynamic.address, size)))

    def functions(self, names: Iterable[str]) -> dict[str, int]:
        """The addresses of those functions that it exports."""
        if not {_DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH} <= self._dynamic.keys():
            return {}
        found = {name: self._lookup(name.encode()) for name in names}
        return {name: address for name, address in found.items() if address}

    def _at(self, tag: int) -> int:
        """An address in the dynamic section: glibc has relocated it by now, other loaders and the vdso have not."""
        value = self._dynamic[tag]
        return value if value >= self._bias else value + self._bias

    def _lookup(self, name: bytes) -> int:
        """Its address, or 0. A Bloom filter says quickly where it is not."""
        table = self._at(_DT_GNU_HASH)
        buckets, first, bloom_words, shift = struct.unpack("<IIII", self._read(table, 16))
        if not buckets or not bloom_words:
            raise NotElfError("an ELF file with an empty table of names")
        code = _gnu_hash(name)
        bloom = self._number(table + 16 + code // 64 % bloom_words * 8, 8)
        if not (bloom >> code % 64 & bloom >> (code >> shift) % 64 & 1):
            return 0
        chains = table + 16 + bloom_words * 8 + buckets * 4
        index = self._number(chains - buckets * 4 + code % buckets * 4, 4)
        if index < first:
            return 0
        for place in range(index, index + _LONGEST_CHAIN):
            link = self._number(chains + (place - first) * 4, 4)
            if link | 1 == code | 1 and (address := self._function(place, name)):
                return address
            if link & 1:
                return 0
        raise NotElfError("an ELF file with a table of names without end")

    def _function(self, index: int, name: bytes) -> int:
        """The address of symbol `index`, if it is the definition of `name`."""
        symbol = self._read(self._at(_DT_SYMTAB) + index * _SYMBOL.size, _SYMBOL.size)
        offset, info, _, section, value, _ = _SYMBOL.unpack(symbol)
        found = self._read(self._at(_DT_STRTAB) + offset, len(name) + 1)
        if not section or info & 15 == _TYPE_INDIRECT or found != name + b"\0":
            return 0
        return self._checked(self._bias + value)

    def _number(self, address: int, size: int) -> int:
        return int.from_bytes(self._read(address, size), "little")

    def _read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes."""
        try:
            content = self._memory(self._checked(address), size)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EFAULT):
                raise
            raise NotElfError("an ELF file that points to where nothing is") from error
        if len(content) != size:
            raise NotElfError("an ELF file that points to where nothing is")
        return content

    def _checked(self, address: int) -> int:
        if not 0 <= address < _MOST_ADDRESS:
            raise NotElfError("an ELF file that points to where nothing can be")
        return address


def _gnu_hash(name: bytes) -> int:
    code = 5381
    for char in name:
        code = code * 33 + char & 0xFFFFFFFF
    return code
