"""ELF files that lie: whatever stands in them ends soon, in a result or an error of ours."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pprofpy.elf import ALL_SYMBOLS, FunctionNames, LoadedElf, NotElfError, Read, find_symbols, read_headers, reader_of

DYNAMIC, LOAD = 2, 1
STRTAB, SYMTAB, GNU_HASH = 5, 6, 0x6FFFFEF5
FUNCTION = 0x12
HUGE = 1 << 40


def symbol(name: int, value: int, size: int = 16, info: int = FUNCTION) -> bytes:
    return struct.pack("<IBBHQQ", name, info, 0, 1, value, size)


def elf(
    symbols: bytes = b"",
    names: bytes = b"\0",
    *,
    machine: int = 62,
    sections: list[tuple[int, int, int, int]] | None = None,
    segments: list[tuple[int, int, int, int]] | None = None,
    tail: bytes = b"",
) -> bytes:
    """A file: headers, segments, sections, symbols, names, and whatever else.

    Args:
        symbols: The content of .symtab.
        names: That of its string table.
        machine: Which processor.
        sections: (kind, offset, size, names) instead of those of symbols and names.
        segments: (kind, offset, address, size).
        tail: The rest, at 0x1000.
    """
    segments = segments or [(LOAD, 0, 0, 0x2000)]
    programs_at = 64
    sections_at = programs_at + 56 * len(segments)
    contents_at = sections_at + 64 * len(sections if sections is not None else [1, 2])
    if sections is None:
        sections = [(ALL_SYMBOLS, contents_at, len(symbols), 1), (3, contents_at + len(symbols), len(names), 0)]
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, programs_at, sections_at, 0, 64, 56, len(segments), 64,
                        len(sections), 0)  # fmt: skip
    head += b"".join(struct.pack("<IIQQQQQQ", kind, 5, at, to, to, size, size, 0) for kind, at, to, size in segments)
    head += b"".join(struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, at, size, link, 0, 0, 0)
                     for kind, at, size, link in sections)  # fmt: skip
    return (head + symbols + names).ljust(0x1000, b"\0") + tail


def symbols_of(content: bytes, *wanted: str) -> dict[str, int]:
    read = reader_of(content)
    return find_symbols(read, read_headers(read), wanted)


def name_at(content: bytes, address: int) -> str:
    read = reader_of(content)
    return FunctionNames(read, read_headers(read)).name(address)


# -- symbols -------------------------------------------------------------------------------------------------------


def test_symbols_are_found_and_addresses_named() -> None:
    content = elf(symbol(1, 0x100) + symbol(5, 0x200), b"\0one\0two\0")

    assert symbols_of(content, "one", "two", "three") == {"one": 0x100, "two": 0x200}
    places = (0xFF, 0x100, 0x10F, 0x110, 0x208)
    assert [name_at(content, place) for place in places] == ["", "one", "one", "", "two"]


@pytest.mark.parametrize(
    "sections",
    [
        [(ALL_SYMBOLS, 0, HUGE, 1), (3, 0, 64, 0)],
        [(ALL_SYMBOLS, 0, 48, 1), (3, 0, HUGE, 0)],
        [(ALL_SYMBOLS, 0, 48, 7)],
        [(ALL_SYMBOLS, 0, 48, 0xFFFFFFFF)],
        [(ALL_SYMBOLS, 1 << 61, 48, 1), (3, 0, 64, 0)],
        [(ALL_SYMBOLS, (1 << 64) - 1, 48, 1), (3, 0, 64, 0)],
        [(ALL_SYMBOLS, 0, (1 << 64) - 1, 1), (3, 0, 64, 0)],
    ],
)
def test_tables_that_cannot_be_are_refused_before_they_are_read(sections: list[tuple[int, int, int, int]]) -> None:
    content = elf(sections=sections)

    def read(offset: int, size: int) -> bytes:
        assert size < 1 << 20
        return content[offset : offset + size]

    def find() -> dict[str, int]:
        return find_symbols(read, read_headers(read), ["x"])

    with pytest.raises(NotElfError):
        find()


def test_a_thousand_tables_of_symbols_are_one() -> None:
    """A file has at most one of each kind; a hostile one could have us read the same content 65,535 times."""
    reads = []
    content = elf(sections=[(3, 0, 64, 0)] + [(ALL_SYMBOLS, 0x1000, 24 << 10, 0)] * 60_000, tail=bytes(24 << 10))

    def read(offset: int, size: int) -> bytes:
        reads.append(size)
        return content[offset : offset + size]

    find_symbols(read, read_headers(read), ["x"])

    assert len(reads) < 10


def test_names_that_recur_are_not_tried_without_end() -> None:
    """A million places where the name stands, none of them a symbol's."""
    content = elf(symbol(0, 0x100) * 1000, b"x\0" * 1_000_000)

    assert symbols_of(content, "x") == {"x": 0x100}
    assert symbols_of(elf(symbol(3, 0x100) * 1000, b"_x\0" * 1_000_000), "x", "_x") == {"_x": 0x100}


def test_a_name_without_end_is_cut() -> None:
    assert len(name_at(elf(symbol(0, 0x100), b"x" * 10_000_000), 0x100)) == 16 << 10


def test_names_beyond_their_table_are_none() -> None:
    assert name_at(elf(symbol(0xFFFFFFFF, 0x100), b"\0abc\0"), 0x100) == ""


def test_a_hundred_thousand_functions_at_one_address_are_a_few() -> None:
    assert name_at(elf(symbol(1, 0x100) * 100_000, b"\0name\0"), 0x100) == "name"


@pytest.mark.parametrize("address", [-1, -(1 << 70), 1 << 64, 1 << 80, (1 << 64) - 1, 0])
def test_any_number_may_be_asked_for(address: int) -> None:
    assert name_at(elf(symbol(1, 0x100, (1 << 64) - 1), b"\0name\0"), address) in ("", "name")


# -- in memory -----------------------------------------------------------------------------------------------------

BASE = 0x7F0000000000


def loaded(table: bytes, *, entries: dict[int, int] | None = None, names: bytes = b"\0wanted\0") -> Read:
    """A process's memory with a file at BASE, whose hash table lies at 0x1200, symbols at 0x1800, names at 0x1900."""
    entries = {STRTAB: 0x1900, SYMTAB: 0x1800, GNU_HASH: 0x1200} | (entries or {})
    dynamic = b"".join(struct.pack("<QQ", tag, value) for tag, value in entries.items())
    tail = (dynamic.ljust(0x200, b"\0") + table).ljust(0x800, b"\0")
    tail += (symbol(0, 0) + symbol(1, 0x123)).ljust(0x100, b"\0")
    segments = [(LOAD, 0, 0, 0x2000), (DYNAMIC, 0x1000, 0x1000, len(dynamic))]
    content = elf(segments=segments, sections=[], tail=tail + names)

    def read(address: int, size: int) -> bytes:
        if not BASE <= address <= BASE + len(content) - size:
            raise OSError(errno.EIO, "nothing is mapped there")
        return content[address - BASE : address - BASE + size]

    return read


def gnu_hash(name: bytes) -> int:
    code = 5381
    for char in name:
        code = code * 33 + char & 0xFFFFFFFF
    return code


def hash_table(buckets: int = 1, first: int = 1, bloom_words: int = 1, shift: int = 6, bucket: int = 1) -> bytes:
    head = struct.pack("<IIIIQ", buckets, first, bloom_words, shift, (1 << 64) - 1)
    return head + struct.pack("<II", bucket, gnu_hash(b"wanted") | 1)


def functions(read: Read) -> dict[str, int]:
    return LoadedElf(read, BASE).functions(["wanted", "other"])


def test_a_function_is_found_in_memory() -> None:
    assert functions(loaded(hash_table())) == {"wanted": BASE + 0x123}


@pytest.mark.parametrize(
    "read",
    [
        loaded(hash_table(buckets=0)),
        loaded(hash_table(bloom_words=0)),
        loaded(hash_table(bloom_words=0xFFFFFFFF)),
        loaded(hash_table(buckets=0xFFFFFFFF)),
        loaded(hash_table(), entries={STRTAB: (1 << 64) - 1}),
        loaded(hash_table(), entries={SYMTAB: 1 << 63}),
        loaded(hash_table(), entries={GNU_HASH: 1 << 50}),
    ],
)
def test_tables_in_memory_that_cannot_be_are_an_error_of_ours(read: Read) -> None:
    with pytest.raises(NotElfError):
        functions(read)


def test_a_chain_without_end_ends() -> None:
    """Never the last one, never the right one."""
    there = loaded(hash_table()[:-4])
    count = 0

    def read(address: int, size: int) -> bytes:
        nonlocal count
        count += 1
        return b"\2\0\0\0" if size == 4 and address > BASE + 0x121C else there(address, size)

    with pytest.raises(NotElfError, match="without end"):
        functions(read)
    assert count < 10_000


@pytest.mark.parametrize("tag", [STRTAB, SYMTAB, GNU_HASH])
def test_a_table_that_is_missing_means_that_nothing_is_exported(tag: int) -> None:
    there = loaded(hash_table())

    def read(address: int, size: int) -> bytes:
        content = there(address, size)
        return content.replace(struct.pack("<Q", tag), struct.pack("<Q", 77)) if address == BASE + 0x1000 else content

    assert functions(read) == {}


def test_other_processors_are_refused() -> None:
    with pytest.raises(NotElfError, match="x86-64"):
        LoadedElf(reader_of(elf(machine=183)), 0)


def test_a_process_that_ends_is_no_damaged_file() -> None:
    def read(address: int, size: int) -> bytes:
        raise ProcessLookupError(errno.ESRCH, "gone")

    with pytest.raises(ProcessLookupError):
        LoadedElf(read, BASE)


# -- anything ------------------------------------------------------------------------------------------------------

VALID = elf(symbol(1, 0x100) + symbol(5, 0x200), b"\0one\0two\0")
NUMBERS = st.sampled_from([0, 1, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, 1 << 62, (1 << 63) - 1, (1 << 64) - 1])


CHANGES = st.lists(st.tuples(st.integers(0, 400), NUMBERS, st.sampled_from([1, 2, 4, 8])), max_size=6)


def functions_of(content: bytes, _: object) -> dict[str, int]:
    return LoadedElf(reader_of(content), 0).functions("x")


@pytest.mark.parametrize("user", [symbols_of, name_at, functions_of])
@given(changes=CHANGES, end=st.integers(0, 500) | st.none())
@settings(max_examples=300, deadline=None)
def test_whatever_is_changed_ends_in_a_result_or_an_error_of_ours(
    user: Callable[..., object], changes: list[tuple[int, int, int]], end: int | None
) -> None:
    content = bytearray(VALID)
    for place, number, size in changes:
        content[place : place + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")

    try:
        user(bytes(content[:end]), "one" if user is symbols_of else 0x100)
    except NotElfError:
        return
