"""Source files that somebody else names: decoded as text only, and their functions found as Python finds them."""

from __future__ import annotations

import ast
import asyncio
import os
import sysconfig
from pathlib import Path

import pytest

from pprofpy.formats.source_text import LARGEST_BYTES, Definition, decoded, definitions, read_source

Row = tuple[str, int, int, int, tuple[str, int]]

SOURCE = '''\
"""def no(): pass"""
@decorated(
    1,
)
async def outer(
    a="""
def no():
""",
):
    class Inner:
        x = 1

        def method(self): return [
            2,
        ]
    # a comment at any indentation
  # is no end
    if a:
\tdef tabbed(): pass
    return f"{a["def no():"]}" \\
        + 'it''s \\'quoted\\''

def last(): pass; x = 1
'''


def read(path: Path) -> list[str]:
    entry = os.open(path, os.O_PATH)
    try:
        return read_source(entry).lines
    finally:
        os.close(entry)


def by_python(text: str) -> list[Row]:
    """What Python's own parser finds."""
    found: list[Row] = []

    def enter(node: ast.AST, prefix: str, outer: tuple[str, int]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name, first = prefix + child.name, min(one.lineno for one in (child, *child.decorator_list))
                inside = "." if isinstance(child, ast.ClassDef) else ".<locals>."
                enter(child, name + inside, (name, child.lineno))
                found.append((name, first, child.lineno, child.end_lineno or 0, outer))
            else:
                enter(child, prefix, outer)

    enter(ast.parse(text), "", ("<module>", 1))
    return sorted(found)


def row(one: Definition) -> Row:
    return one.qualified_name, one.first, one.line, one.last, one.outer


def test_functions_and_classes() -> None:
    assert sorted(map(row, definitions(SOURCE.split("\n")))) == [
        ("last", 23, 23, 23, ("<module>", 1)),
        ("outer", 2, 5, 21, ("<module>", 1)),
        ("outer.<locals>.Inner", 10, 10, 15, ("outer", 5)),
        ("outer.<locals>.Inner.method", 13, 13, 15, ("outer.<locals>.Inner", 10)),
        ("outer.<locals>.tabbed", 19, 19, 19, ("outer", 5)),
    ]


@pytest.mark.parametrize("folder", [Path(asyncio.__file__).parent, Path(sysconfig.get_path("stdlib")) / "test"])
def test_python_finds_the_same_in_its_own_library(folder: Path) -> None:
    compared = 0
    for path in sorted(folder.glob("*.py"))[:120]:
        lines = decoded(path.read_bytes())
        try:
            expected = by_python("\n".join(lines))
        except SyntaxError:
            continue
        assert sorted(map(row, definitions(lines))) == expected, path
        compared += len(expected)
    if not compared:
        pytest.skip(f"no source in {folder}")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 1_000_000, '"""' + '"a' * 300_000, "'\\" * 500_000, "\\\n" * 500_000, "\n" * 1_000_000, "#\n" * 500_000,
        "-" * 1_000_000 + "1", "".join(" " * depth + "def f():\n" for depth in range(1000)), "\0\x1b" * 1000, "",
    ],
    ids=range(10),
)  # fmt: skip
def test_hostile_text_takes_neither_long_nor_a_deep_stack(text: str) -> None:
    assert len(definitions(text.split("\n"))) <= 100


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"# -*- coding: latin-1 -*-\r\nx = '\xf6'", "x = 'ö'"),
        (b"#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\nx = '\x80'", "x = '€'"),
        (b"# coding: euc_jp\nx = '\xa4\xa2'", "x = 'あ'"),
        (b"# coding: iso-8859-15-unix\nx = '\xa4'", "x = '€'"),
        (b"\xef\xbb\xbf# coding: utf-8\nx = '\xc3\xb6'", "x = 'ö'"),
        (b"# coding: rot13\nx = 'frperg'", "x = 'frperg'"),
        (b"# coding: unicode_escape\nx = '\\x41'", "x = '\\x41'"),
        (b"# coding: zlib_codec\nx = 1", "x = 1"),
        (b"# coding: idna\nx = 1", "x = 1"),
        (b"# coding: nonsense\nx = 1", "x = 1"),
        (b"# coding: \xff\nx = 1", "x = 1"),
    ],
)
def test_only_text_codecs_decode(content: bytes, line: str) -> None:
    assert decoded(content)[-1] == line


def test_what_is_too_large_is_no_source(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_bytes(b"x" * LARGEST_BYTES)
    assert read(path) == ["x" * LARGEST_BYTES]

    path.write_bytes(b"x" * (LARGEST_BYTES + 1))
    with pytest.raises(OSError, match="larger"):
        read(path)


@pytest.mark.parametrize("name", ["/proc/version", "/proc/self/environ", "/sys/kernel/notes", "/dev/zero", "/proc"])
def test_what_the_kernel_makes_up_is_no_source(name: str) -> None:
    if not Path(name).exists():
        pytest.skip(f"there is no {name} here")
    with pytest.raises(PermissionError, match="no source"):
        read(Path(name))


def test_a_pipe_that_nobody_writes_to_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.py")
    with pytest.raises(PermissionError, match="no source"):
        read(tmp_path / "a.py")


def test_a_long_name_is_not_repeated_in_each_inner_function() -> None:
    text = "class " + "x" * 200_000 + ":\n" + " def f(): pass\n" * 3000

    found = definitions(text.split("\n"))

    assert len(found) == 3001
    assert max(len(one.qualified_name) for one in found) <= 500
