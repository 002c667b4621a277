"""From a source file's path to the name of its module, as an import statement would spell it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from pprofpy.recent import Recent
from pprofpy.target.named_files import NamedFiles
from pprofpy.target.procfs import Process

_FROZEN = re.compile(r"<frozen (?P<module>[\w.]+)>")
_LIBRARY_ROOT = re.compile(r"(?:site-packages|dist-packages|lib-dynload|/lib(?:64)?/(?:python|pypy)\d+\.\d+t?)/")
_ARCHIVE = re.compile(r"\.(?:zip|egg|whl|pyz|pex)/")
_DEEPEST_PACKAGE = 32
_MOST_FILES = 20_000
_SUFFIX = re.compile(r"(?:\.cpython-[\w-]+|\.abi3)?\.(?:pyc?|pyw|pyx|so)$")


class ModuleNames:
    """Names modules for the files of one process.

    Args:
        root: The process's root folder, as reached from here.
        pid: The process, or one that sees the same files.
    """

    def __init__(self, root: Path, pid: Process = "self") -> None:
        self._files = NamedFiles(root, pid)
        self._known: Recent[str, str] = Recent(_MOST_FILES)

    def name(self, filename: str) -> str:
        """The module that `filename` holds; the file's own name where there is no way to import it.

        Examples: `/usr/lib/python3.11/json/decoder.py` is json.decoder, `/srv/app/worker.py` is worker (or app.worker
        if there is a `/srv/app/__init__.py`), `<frozen importlib._bootstrap>` is importlib._bootstrap.
        """
        known = self._known.get(filename)
        if known is None:
            self._known[filename] = known = self._derive(filename)
        return known

    def _derive(self, filename: str) -> str:
        if frozen := _FROZEN.fullmatch(filename):
            return frozen["module"]
        if not filename or filename.startswith("<"):
            return filename
        below = _after_last(_LIBRARY_ROOT, filename) or _after_last(_ARCHIVE, filename)
        return _dotted(PurePosixPath(below) if below else _below_top_package(filename, self._is_file))

    def _is_file(self, path: PurePosixPath) -> bool:
        """Does the target have this file? Relative paths may be relative to anything."""
        return path.is_absolute() and ".." not in path.parts and self._files.has(str(path))


def _after_last(pattern: re.Pattern[str], text: str) -> str:
    matches = list(pattern.finditer(text))
    return text[matches[-1].end() :] if matches else ""


def _below_top_package(filename: str, is_file: Callable[[PurePosixPath], bool]) -> PurePosixPath:
    """The path from the folder that holds the outermost package; packages are told by their `__init__.py`."""
    path = PurePosixPath(filename)
    folder = path.parent
    for _ in range(_DEEPEST_PACKAGE):
        if folder == folder.parent or not is_file(folder / "__init__.py"):
            break
        folder = folder.parent
    return path.relative_to(folder)


def _dotted(path: PurePosixPath) -> str:
    parts = [*path.parts[:-1], _SUFFIX.sub("", path.name)]
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)
