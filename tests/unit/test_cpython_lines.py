"""Instructions are on the lines that the interpreter itself says, for the line tables of every version."""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from typing import Any

import pytest

from pprofpy.collectors.cpython.linetable import line_of
from tests.conftest import interpreter

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


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "system"])
def test_every_instruction_is_on_the_line_that_the_interpreter_says(version: str) -> None:
    done = subprocess.run([interpreter(version), "-c", ASK], capture_output=True, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    major, minor = said["version"]
    unit = 1 if minor < 10 else 2

    wrong, count = [], 0
    for code in said["codes"]:
        table = bytes.fromhex(code["table"])
        for start, end, line in code["lines"]:
            for place in range(start, end, 2):
                count += 1
                found = line_of((major, minor), table, code["first"], place // unit)
                if found != line:
                    wrong.append((code["first"], place, found, line))

    assert count > 5000
    assert wrong == []


def test_what_has_not_begun_is_on_the_first_line() -> None:
    assert all(line_of(version, b"\x80\x10", 42, -1) == 42 for version in ((3, 8), (3, 10), (3, 12)))


@pytest.mark.parametrize("version", [(3, 8), (3, 10), (3, 11)])
def test_a_table_that_is_cut_short_or_garbage_still_gives_a_number(version: tuple[int, int]) -> None:
    for table in (b"", b"\xff", b"\xf0\x7f\x7f", bytes(range(256))):
        assert all(isinstance(line_of(version, table, 1, place), int) for place in (0, 1, 100, 70_000))


def test_lines_never_go_back_in_straight_code() -> None:
    source = "\n".join(f"x{number} = {number}" for number in range(50))
    code = compile(source, "x", "exec")
    import sys

    lines = [
        line_of(sys.version_info[:2], code.co_linetable, code.co_firstlineno, place)
        for place in range(2, len(code.co_code) // 2)
    ]
    assert all(before <= after for before, after in pairwise(lines[:-4]))
