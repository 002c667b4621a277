"""Instructions are on the lines that the interpreter itself says, for the line tables of every version."""

from __future__ import annotations

import json
import subprocess
import time
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pprofpy.collectors.cpython.linetable import MOST_LINES, LineTables, line_of, units_covered
from pprofpy.collectors.cpython.versions import LineTable, version_of
from tests.conftest import FREE_PYTHONS, PYTHONS, interpreter

ASK = """
import argparse, dis, json, sys, types

MULTI = '''
def f(a,
      b=1):
    x = [one
         for one in range(
             a)]
    try:
        return g(x,
                 b)
    except ValueError as error:
        raise TypeError(
            "no") from error
    finally:
        with open("x") as y: pass

class C:
    def m(self): return (
        1 +
        2)
''' + "\\n" * 300 + "z = 1; y = (lambda: 2)\\n" + "w = " + "+".join(["z"] * 300) + "\\nv = 3"

def codes(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)

found = []
sources = [MULTI, open(argparse.__file__).read()]
for code in (code for source in sources for code in codes(compile(source, "x", "exec"))):
    modern = sys.version_info >= (3, 10)
    if modern:
        lines = [(start, end, line) for start, end, line in code.co_lines() if line is not None]
    else:
        starts = list(dis.findlinestarts(code)) + [(len(code.co_code), None)]
        lines = [(start, end, line) for (start, line), (end, _) in zip(starts, starts[1:])]
    table = code.co_linetable if modern else code.co_lnotab
    found.append({"table": table.hex(), "first": code.co_firstlineno, "lines": lines})
json.dump({"version": sys.version_info[:2], "codes": found}, sys.stdout)
"""


@pytest.mark.parametrize("version", [*PYTHONS, *FREE_PYTHONS, "system"])
def test_every_instruction_is_on_the_line_that_the_interpreter_says(version: str) -> None:
    done = subprocess.run([interpreter(version), "-c", ASK], capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    number = said["version"][0], said["version"][1]
    unit = 1 if number[1] < 10 else 2
    tables = LineTables(version_of(number).lines)

    wrong, count = [], 0
    for code in said["codes"]:
        table = bytes.fromhex(code["table"])
        for start, end, line in code["lines"]:
            for place in range(start, end, 2):
                count += 1
                found = tables.line(table, code["first"], place // unit)
                if found != line:
                    wrong.append((code["first"], place, found, line))

    assert count > 5000
    assert wrong == []


def test_what_has_not_begun_is_on_the_first_line() -> None:
    assert all(line_of(form, b"\x80\x10", 42, -1) == 42 for form in LineTable)


@pytest.mark.parametrize("form", LineTable)
def test_a_table_that_is_cut_short_or_garbage_still_gives_a_number(form: LineTable) -> None:
    for table in (b"", b"\xff", b"\xf0\x7f\x7f", bytes(range(256))):
        assert all(isinstance(line_of(form, table, 1, place), int) for place in (0, 1, 100, 70_000))


def test_lines_never_go_back_in_straight_code() -> None:
    source = "\n".join(f"x{number} = {number}" for number in range(50))
    code = compile(source, "x", "exec")
    import sys

    lines = [
        line_of(version_of(sys.version_info[:2]).lines, code.co_linetable, code.co_firstlineno, place)
        for place in range(2, len(code.co_code) // 2)
    ]
    assert all(before <= after for before, after in pairwise(lines[:-4]))


# -- forged tables ---------------------------------------------------------------------------------------------------

MEGABYTE = 1 << 20


@pytest.mark.parametrize("form", LineTable)
@pytest.mark.parametrize(
    "unit", [b"\x80", b"\xff", b"\xf0\x7f\x7f\x7f\x7f\x7f", b"\xf0" + b"\x7f" * 4000, b"\x01\x7f", b"\0"]
)
def test_a_megabyte_of_table_is_decoded_once_however_many_instructions_are_asked_for(
    form: LineTable, unit: bytes
) -> None:
    tables, table = LineTables(form), unit * (MEGABYTE // len(unit))
    started = time.process_time()

    lines = {tables.line(table, 1, instruction) for instruction in range(0, 2_000_000, 1_000)}

    assert time.process_time() - started < 5  # it took minutes
    assert all(0 <= line < MOST_LINES for line in lines)


def test_many_large_tables_do_not_fill_the_memory() -> None:
    tables = LineTables(LineTable.ENTRIES)
    tracemalloc.start()
    for number in range(60):
        tables.line(number.to_bytes(2, "little") + b"\x80" * MEGABYTE, 1, 5)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 64 * MEGABYTE


@pytest.mark.parametrize("first_line", [-5, 0, 2**31 - 1, 2**40])
@pytest.mark.parametrize("form", LineTable)
def test_lines_are_those_that_an_interpreter_can_have(form: LineTable, first_line: int) -> None:
    numbers = b"\xe8" + b"\x7f" * 4_000 + b"\x01"  # a step of 24,000 bits

    for table in (b"", numbers, b"\x01\x7f" * 500, b"\x01\x81" * 500):
        for instruction in (-1, 0, 1, 600, 2**62):
            assert 0 <= line_of(form, table, first_line, instruction) < MOST_LINES


@given(entries=st.lists(st.tuples(st.integers(0, 15), st.integers(1, 8), st.integers(-(2**20), 2**20)), max_size=40))
def test_entries_of_all_kinds_mean_what_the_interpreter_means_by_them(entries: list[tuple[int, int, int]]) -> None:
    table, line = b"", 2**22
    expected: list[int] = []
    for kind, length, step in entries:
        table += bytes([0x80 | kind << 3 | length - 1])
        if kind in (13, 14):
            table += varint(abs(step) << 1 | (step < 0))
            line += step
        elif 10 <= kind <= 12:
            line += kind - 10
        table += {0: b"\x11", 11: b"\x01\x02", 14: b"\1\1\1"}.get(kind, b"")
        if kind == 15 and expected:
            expected += expected[-1:] * length
        else:
            expected += [line if kind != 15 else 2**22] * length

    found = [line_of(LineTable.ENTRIES, table, 2**22, instruction) for instruction in range(len(expected))]

    assert found == expected
    assert units_covered(table) == len(expected)


@given(
    form=st.sampled_from(LineTable),
    table=st.binary(max_size=300),
    place=st.integers(-2, 2**63),
)
def test_whatever_a_table_holds_gives_a_line(form: LineTable, table: bytes, place: int) -> None:
    assert 0 <= line_of(form, table, 7, place) < MOST_LINES


def varint(number: int) -> bytes:
    """Six bits a byte, the lowest first."""
    found = []
    while number >= 64:
        found.append(number & 63 | 64)
        number >>= 6
    return bytes([*found, number])
