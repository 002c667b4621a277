"""What an attach reads of its target, when that is made to mislead: memory, and a library in it."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import struct
from collections.abc import Callable
from contextlib import suppress

import pytest

from pprofpy.collectors.attach.ptrace import WritableMemory
from pprofpy.elf import LoadedElf, NotElfError
from pprofpy.target import procfs

NAMES = ("pthread_create", "pthread_self", "malloc")
BASE = 0x10000


class Forged(WritableMemory):
    """A memory that holds `content` at BASE, and whatever `fill` says behind it."""

    def __init__(self, content: bytes, fill: Callable[[int], bytes] | None = None) -> None:
        self.content, self._fill, self.reads = content, fill, 0

    def read(self, address: int, length: int) -> bytes:
        self.reads += 1
        assert length < 1 << 23
        part = self.content[max(address - BASE, 0) :][:length] if address >= BASE else b""
        if len(part) < length and self._fill:
            part += (self._fill(address) * length)[: length - len(part)]
        if len(part) < length:
            raise OSError(errno.EIO, "nothing there")
        return part


def library(count: int = 2, size: int = 56, dynamic_bytes: int = 96, chains: bytes = b"\0" * 4) -> bytes:
    """An ELF file with a hash table whose only chain is `chains`."""
    header = b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + b"\x3e\0".ljust(14, b"\0")
    header += struct.pack("<Q", 64) + bytes(14) + struct.pack("<HH", size, count) + bytes(6)
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 4096, 4096, 4096)
    segments += struct.pack("<IIQQQQQQ", 2, 6, 0, 0x200, 0, dynamic_bytes, dynamic_bytes, 8)
    dynamic = struct.pack("<QQQQQQ", 0x6FFFFEF5, 0x300, 5, 0x400, 6, 0x500).ljust(96, b"\0")
    table = struct.pack("<IIIIQI", 1, 1, 1, 5, (1 << 64) - 1, 1) + chains
    return (header + segments).ljust(0x200, b"\0") + dynamic.ljust(0x100, b"\0") + table


def test_functions_are_found_where_the_c_library_says_they_are() -> None:
    libc = next(one for one in procfs.mappings("self") if "/libc.so" in one.path or "/ld-musl" in one.path)
    with WritableMemory(os.getpid()) as memory:
        found = LoadedElf(memory.read, libc.start).functions(["getpid", "malloc", "no_such_function"])

    assert found["getpid"] == ctypes.cast(ctypes.CDLL(None).getpid, ctypes.c_void_p).value
    assert "no_such_function" not in found


@pytest.mark.parametrize(
    "content",
    [
        library(count=65535),
        library(size=65535),
        library(size=8),
        library(dynamic_bytes=1 << 40),
        library()[:0x304] + bytes(4) + library()[0x308:],
        library()[:0x300] + bytes(8) + library()[0x308:],
        library()[:0x200] + bytes(96) + library()[0x260:],
        library()[:0x210] + bytes(80) + library()[0x260:],
        library()[:0x300],
    ],
)
def test_a_library_that_is_none_is_refused(content: bytes) -> None:
    with suppress(NotElfError):
        assert LoadedElf(Forged(content).read, BASE).functions(NAMES) == {}


def test_a_chain_without_end_ends() -> None:
    memory = Forged(library(), fill=lambda address: b"\2\0\0\0")

    with pytest.raises(NotElfError, match="without end"):
        LoadedElf(memory.read, BASE).functions(NAMES)
    assert memory.reads < 20_000


def test_any_damage_ends_in_a_known_error() -> None:
    source = random.Random(1)
    for _ in range(500):
        content = bytearray(library(chains=b"\1\0\0\0"))
        for _ in range(source.randint(1, 8)):
            content[source.randrange(len(content))] = source.choice([0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)])
        with suppress(NotElfError):
            LoadedElf(Forged(bytes(content), fill=lambda address: b"\xfe").read, BASE).functions(NAMES)


@pytest.mark.parametrize(
    ("address", "length"), [(1 << 63, 8), ((1 << 64) - 4, 8), (-8, 8), (0x1000, 1 << 40), (0x1000, -1)]
)
def test_addresses_that_no_program_has_are_not_there(address: int, length: int) -> None:
    with WritableMemory(os.getpid()) as memory:
        with pytest.raises(OSError, match="Input/output"):
            memory.read(address, length)
        if length == 8:
            with pytest.raises(OSError, match="Input/output"):
                memory.write(address, bytes(8))
