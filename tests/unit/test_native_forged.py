"""Native files that their makers have forged: each ends soon, in little memory, in an error of ours at worst."""

from __future__ import annotations

import os
import resource
import string
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pprofpy.budget import Budget
from pprofpy.collectors.unwind import demangle
from pprofpy.collectors.unwind.cfi import CfiTable
from pprofpy.collectors.unwind.demangle import readable
from pprofpy.collectors.unwind.dwarf import CfiError, evaluate
from pprofpy.errors import ImplausibleTargetError
from pprofpy.system.sandbox import seccomp_filter

INDEX, TABLE = 0x1000, 0x2000
NO_ENTRY = b"\0\0\0\0"
ALONE = b"\x01zR\0\x01\x78\x10\x01\x1b"
"""A common entry's version, augmentation, factors, return address and encoding."""


def leb(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def table_of(program: bytes, *, common: bytes = ALONE, count: int = 1) -> CfiTable:
    """The tables of a file with one function at 0x10000 of 64 KB, unwound by `program`."""
    head = NO_ENTRY + common
    first = struct.pack("<I", len(head)) + head
    at = TABLE + len(first) + 4
    body = struct.pack("<IiI", at - TABLE, 0x10000 - (at + 4), 0x10000) + b"\0" + program
    memory = first + struct.pack("<I", len(body)) + body
    index = struct.pack("<BBBBiIii", 1, 0x1B, 3, 0x3B, 0, count, 0x10000 - INDEX, TABLE + len(first) - INDEX)

    def read(address: int, size: int) -> bytes:
        content, start = (index, INDEX) if address < TABLE else (memory, TABLE)
        return content[address - start : address - start + size] if address >= start else b""

    return CfiTable(read, INDEX)


def test_the_reader_of_names_can_do_nothing_else() -> None:
    reader = demangle._Demangler()
    assert reader.ask("_Z3addii") == "add(int, int)"
    process = reader._process
    assert process

    said = Path(f"/proc/{process.pid}/status").read_text()

    reader.close()
    fields = dict(line.split(":\t", 1) for line in said.splitlines())
    assert fields["Seccomp"].strip() == "2"
    assert fields["NoNewPrivs"].strip() == "1"
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0


def test_a_filter_lets_nothing_through_but_what_it_names() -> None:
    code = (
        "import ctypes, os, struct, sys\n"
        f"rules = {seccomp_filter()!r}\n"
        "kept, libc = ctypes.create_string_buffer(rules), ctypes.CDLL(None)\n"
        "libc.prctl(38, 1, 0, 0, 0)\n"
        'assert not libc.prctl(22, 2, struct.pack("@HP", len(rules) // 8, ctypes.addressof(kept)), 0, 0)\n'
        "for call in (lambda: os.open('/', 0), os.fork, lambda: os.kill(os.getppid(), 0), os.pipe):\n"
        "    try:\n"
        "        call()\n"
        "    except PermissionError:\n"
        "        os.write(1, b'refused ')\n"
        "os.write(1, b'%d' % len(bytes(50_000_000)))\n"
        "os._exit(0)"
    )

    assert subprocess.check_output([sys.executable, "-I", "-c", code]) == b"refused refused refused refused 50000000"


def test_a_function_is_unwound_by_its_table() -> None:
    row = table_of(b"\x0c\x07\x10" + b"\x44" + b"\x0e\x20").row(0x10005)

    assert row
    assert (row.register, row.offset) == (7, 32)


PROGRAMS = {
    "rows without end": b"\x41" * 200_000,
    "states without end": b"\x0a" * 200_000,
    "steps without end": b"\0" * 240_000,
    "a number without end": b"\x0e" + b"\x80" * 200_000 + b"\1",
    "an expression without end": b"\x0f" + leb(100_000) + b"\x30" * 100_000,
    "a table without end": b"\0" * (1 << 20),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_table_without_end_is_refused(what: str) -> None:
    with pytest.raises(CfiError):
        table_of(PROGRAMS[what]).row(0x10005)


def test_a_table_is_read_within_its_budget() -> None:
    with pytest.raises(ImplausibleTargetError):
        table_of(b"\0" * 50_000).row(0x10005, Budget("a file", steps=1_000))


def test_an_index_of_more_functions_than_any_is_refused_before_it_is_read() -> None:
    with pytest.raises(CfiError, match="4294967295"):
        table_of(b"", count=0xFFFFFFFF)


@pytest.mark.parametrize("address", [-1, 0, 2**31, 2**63, 2**64 - 1, 2**64])
def test_addresses_of_all_sizes_are_looked_up(address: int) -> None:
    assert table_of(b"").row(address) is None


def test_values_of_registers_never_leave_64_bits() -> None:
    assert evaluate(b"\x77\x7f" + b"\x23\x05" + b"\x06", [2**64 - 1] * 17, lambda address: 2**64 - 1) == 2**64 - 1
    assert evaluate(b"", [0] * 17, lambda address: 0, 2**200) < 2**64


@given(program=st.binary(max_size=200), common=st.binary(max_size=12), address=st.integers(0x10000, 0x1FFFF))
def test_any_table_ends_in_rows_or_an_error_of_ours(program: bytes, common: bytes, address: int) -> None:
    for head in (ALONE, b"\x01zR\0\x01\x78\x10\x01\x1b" + common, common):
        with suppress(CfiError):
            row = table_of(program, common=head).row(address)
            assert row is None or 0 <= row.register <= 16


@given(expression=st.binary(max_size=64), registers=st.lists(st.integers(0, 2**64 - 1), min_size=17, max_size=17))
def test_any_expression_ends_in_a_number_or_an_error_of_ours(expression: bytes, registers: list[int]) -> None:
    with suppress(CfiError):
        assert 0 <= evaluate(expression, registers, lambda address: address, 0) < 2**64


# -- names ---------------------------------------------------------------------------------------------------------


def bomb(doublings: int) -> str:
    """Names a function with 2 ** doublings parameters, in a few bytes each."""
    found = "_Z1f1PI1AS0_E"
    for digit in (string.digits + string.ascii_uppercase)[1 : doublings + 1]:
        reference = f"S{digit}_"
        found += f"S_I{reference}{reference}E"
    return found


@pytest.fixture
def _is_readable() -> None:
    if readable("_Z3addii") != "add(int, int)":
        pytest.skip("there is no C++ library here")


@pytest.mark.usefixtures("_is_readable")
@pytest.mark.parametrize(
    "symbol",
    [
        bomb(12),
        bomb(20),
        bomb(34),
        "_Z" + "N" * 3_000,
        "_Z1f" + "P" * 3_000 + "i",
        "_Z1fI" + "XadL" * 900,
        "_Z" + "1" * 3_000,
        "_Z" * 1_500,
    ],
)
def test_names_that_explode_stay_as_they_are(symbol: str) -> None:
    started = time.monotonic()

    assert len(readable(symbol)) <= max(4_096, len(symbol))

    assert time.monotonic() - started < 30
    assert readable("_Z3addiii") == "add(int, int, int)"


@pytest.mark.usefixtures("_is_readable")
def test_if_the_reader_of_names_dies_another_takes_its_place_a_few_times() -> None:
    helper = demangle._Demangler()
    for name in ("_Z3addi", "_Z3addl", "_Z3adds"):
        assert helper.ask(name)
        assert helper._process
        helper._process.kill()
        helper._process.wait()
        assert helper.ask(name) == ""

    assert helper.ask("_Z3addc") == ""
    helper.close()


@given(symbol=st.text(max_size=60) | st.from_regex(r"_Z[0-9A-Za-z_.$@]{0,60}", fullmatch=True))
def test_any_symbol_has_a_name(symbol: str) -> None:
    assert isinstance(readable(symbol), str)


def test_names_are_read_by_a_process_with_very_many_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    demangle._demangler.close()
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        assert demangle.readable("_ZN4many5filesEi") == "many::files(int)"
    finally:
        for file in files:
            os.close(file)
        demangle._demangler.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
