"""What differs between versions of CPython is in one place, which refuses those that it does not know."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pprofpy
from pprofpy.collectors.cpython import versions
from pprofpy.collectors.cpython.debugoffsets import TABLE_BYTES, described
from pprofpy.collectors.cpython.versions import (
    VERSIONS,
    UnknownVersionError,
    is_new,
    sampler_defines,
    version_like,
    version_of,
)

PACKAGE = Path(pprofpy.__file__).parent
OLDEST, NEWEST = min(VERSIONS), max(VERSIONS)
NEXT = NEWEST[0], NEWEST[1] + 1
UNKNOWN = [(2, 7), (OLDEST[0], OLDEST[1] - 1), (4, 0)]
FRAMES = PACKAGE / "collectors/heapagent/sampler/frames.h"


@pytest.mark.parametrize("number", UNKNOWN)
def test_an_unknown_version_is_refused_wherever_something_depends_on_it(number: tuple[int, int]) -> None:
    for use in (version_of, version_like, lambda one: described(one, bytes(TABLE_BYTES))):
        with pytest.raises(UnknownVersionError, match=rf"the layout of Python {number[0]}\.{number[1]} is not known"):
            use(number)


def test_the_next_version_is_tried_like_the_newest_but_not_known() -> None:
    assert version_like(NEXT) is VERSIONS[NEWEST]
    assert is_new(NEXT)
    assert not any(map(is_new, [*VERSIONS, *UNKNOWN]))
    with pytest.raises(UnknownVersionError):
        version_of(NEXT)
    with pytest.raises(UnknownVersionError, match="free-threaded"):
        version_like(NEXT, is_free_threaded=True)


def test_there_is_no_gap_between_known_versions() -> None:
    assert list(VERSIONS) == [(3, minor) for minor in range(OLDEST[1], NEWEST[1] + 1)]


def test_the_sampler_is_told_every_member_of_every_version() -> None:
    struct = re.search(r"typedef struct \{(.*?)\} Layout;", FRAMES.read_text(), re.DOTALL)
    assert struct
    declared = re.findall(r"(\w+)[,;]", re.sub(r"/\*.*?\*/", "", struct[1], flags=re.DOTALL))

    rows = re.findall(r"\{(.*?)\}", sampler_defines()["LAYOUTS"])

    assert len(rows) == len(VERSIONS)
    assert all(re.findall(r"\.(\w+) =", row) == declared for row in rows)


def version_comparisons(source: str) -> Iterator[int]:
    """Lines on which something is compared with a version of Python, or on which our own is asked for."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Tuple) and ast.unparse(side).startswith("(3, ") for side in sides):
                yield node.lineno
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.version_info", "sys.hexversion"):
            yield node.lineno


def test_comparisons_of_versions_are_found() -> None:
    assert [*version_comparisons("x = version >= (3, 12)\ny = sys.version_info[1]\nz = (3, 1) > version")] == [1, 3, 2]


def test_no_other_module_compares_versions() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in PACKAGE.rglob("*.py")
        for line in version_comparisons(path.read_text())
    }
    in_c = {
        str(path.relative_to(PACKAGE))
        for path in (*PACKAGE.rglob("*.c"), *PACKAGE.rglob("*.h"))
        if re.search(r"PY_VERSION|minor *(<|>|!=)", path.read_text())
    }

    assert found | in_c == set()


def test_the_table_of_versions_needs_nothing_but_the_standard_library() -> None:
    """The build of the sampler reads it where no other package is."""
    tree = ast.parse(Path(versions.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert imported == {"__future__", "collections.abc", "dataclasses", "enum"}
