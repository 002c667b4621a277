"""Names for the functions of a heap profile: from code objects or, where only file and line are known, the source."""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from contextlib import suppress
from pathlib import Path

from pprofpy.collectors.cpython.modules import ModuleNames
from pprofpy.profile import Frame, Function

_OURS = re.compile(r"<pprofpy.*>")
_LARGEST_SOURCE_BYTES = 10 << 20


def is_ours(filename: str) -> bool:
    """Is it code that we brought into the target?"""
    return bool(_OURS.fullmatch(filename))


class Frames:
    """Makes functions and frames for one process.

    Args:
        root: The process's root folder, as reached from here.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules = ModuleNames(root)
        self._sources: dict[str, _Source] = {}

    def function(self, filename: str, qualified_name: str, first_line: int) -> Function:
        """A function of which the interpreter told the name."""
        module = self._modules.name(filename)
        name = f"{module}.{qualified_name}" if module else qualified_name
        return Function(name, qualified_name, filename, first_line)

    def frame(self, filename: str, line: int) -> Frame:
        """A frame of which only file and line are known: the source tells the function around that line."""
        if filename not in self._sources:
            self._sources[filename] = _Source(_read(self._root, filename))
        return Frame(self.function(filename, *self._sources[filename].around(line)), line)


class _Source:
    """Which function each line of a file belongs to."""

    def __init__(self, text: str) -> None:
        self._starts: list[int] = []
        self._functions: list[tuple[str, int]] = []
        changes: dict[int, tuple[str, int]] = {0: ("<module>", 1)}
        with suppress(SyntaxError, ValueError, RecursionError):  # another version's syntax: all lines are the module's
            _enter(ast.parse(text), "", ("<module>", 1), changes)
        for line in sorted(changes):
            self._starts.append(line)
            self._functions.append(changes[line])

    def around(self, line: int) -> tuple[str, int]:
        """The qualified name of the innermost function around a line, and its first line."""
        return self._functions[bisect_right(self._starts, line) - 1]


def _enter(node: ast.AST, prefix: str, outer: tuple[str, int], changes: dict[int, tuple[str, int]]) -> None:
    """Note at which lines below `node` another function begins, and where the outer one goes on.

    In the order of the source: where one function follows another at once, the mark of its beginning comes last.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            here = prefix + child.name, child.lineno
            changes[child.lineno] = here
            inside = "." if isinstance(child, ast.ClassDef) else ".<locals>."
            _enter(child, prefix + child.name + inside, here, changes)
            changes[(child.end_lineno or child.lineno) + 1] = outer
        else:
            _enter(child, prefix, outer, changes)


def _read(root: Path, filename: str) -> str:
    """A source file of the target's; empty if there is none."""
    try:
        path = root / Path(filename).relative_to("/")
        if ".." in path.parts or not path.is_file() or path.stat().st_size > _LARGEST_SOURCE_BYTES:
            return ""
        return path.read_text(errors="replace")
    except (OSError, ValueError):
        return ""
