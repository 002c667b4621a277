"""Names for the functions of a heap profile: from code objects or, where only file and line are known, the source."""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from pathlib import Path

from pprofpy.collectors.cpython.modules import ModuleNames
from pprofpy.formats.source_text import LARGEST_BYTES, decoded, definitions
from pprofpy.model.profile import Frame, Function
from pprofpy.system.blocking import bounded
from pprofpy.target.named_files import NamedFiles
from pprofpy.target.procfs import Process

_OURS = re.compile(r"<pprofpy.*>")
_MOST_SOURCE_BYTES, _MOST_SECONDS = 64 << 20, 10.0
"""For all that is read of a target's files; the seconds do not count what else happens meanwhile."""


def is_ours(filename: str) -> bool:
    """Is it code that we brought into the target?"""
    return bool(_OURS.fullmatch(filename))


class Frames:
    """Makes functions and frames for one process.

    Args:
        root: The process's root folder, as reached from here.
        pid: The process, or one that sees the same files.
    """

    def __init__(self, root: Path, pid: Process = "self") -> None:
        self._files, self._subject = NamedFiles(root, pid), f"the source of process {pid}"
        self._modules = ModuleNames(root, pid)
        self._sources: dict[str, _Source] = {}
        self._rest_bytes, self._rest_s = _MOST_SOURCE_BYTES, _MOST_SECONDS

    def function(self, filename: str, qualified_name: str, first_line: int) -> Function:
        """A function of which the interpreter told the name."""
        module = self._module(filename)
        name = f"{module}.{qualified_name}" if module else qualified_name
        return Function(name, qualified_name, filename, first_line)

    def frame(self, filename: str, line: int) -> Frame:
        """A frame of which only file and line are known: the source tells the function around that line."""
        if filename not in self._sources:
            self._sources[filename] = self._source(filename)
        return Frame(self.function(filename, *self._sources[filename].around(line)), line)

    def is_incomplete(self) -> bool:
        """Has the target more or larger files than we read of one?"""
        return self._rest_s < 0 or self._rest_bytes < 0

    def _module(self, filename: str) -> str:
        """The module of a file; empty once finding out has taken too long."""
        if self._rest_s < 0:
            return ""
        start = time.monotonic()
        module = self._modules.name(filename)
        self._rest_s -= time.monotonic() - start
        return module

    def _source(self, filename: str) -> _Source:
        """A source file of the target's; as if empty if it is none, or once reading them has taken too long."""
        if self.is_incomplete():
            return _Source([])
        start = time.monotonic()
        lines = self._read(filename)
        source = _Source(lines)
        self._rest_bytes -= sum(map(len, lines))
        self._rest_s -= time.monotonic() - start
        return source

    def _read(self, filename: str) -> list[str]:
        """The lines of a source file of the target's, as its user could read it; empty if there is none."""
        if not filename.startswith("/"):
            return []
        try:
            return bounded(self._subject, lambda: self._lines(filename))
        except (OSError, ValueError):
            return []

    def _lines(self, filename: str) -> list[str]:
        with self._files.open(filename) as file:
            return decoded(file.read(0, LARGEST_BYTES)) if file.size <= LARGEST_BYTES else []


class _Source:
    """Which function each line of a file belongs to."""

    def __init__(self, lines: list[str]) -> None:
        found = definitions(lines)
        changes = {0: ("<module>", 1)}
        changes |= {one.last + 1: one.outer for one in found}
        changes |= {one.line: (one.qualified_name, one.line) for one in found}  # one may begin where another has ended
        self._starts = sorted(changes)
        self._functions = [changes[line] for line in self._starts]

    def around(self, line: int) -> tuple[str, int]:
        """The qualified name of the innermost function around a line, and its first line."""
        return self._functions[bisect_right(self._starts, line) - 1]
