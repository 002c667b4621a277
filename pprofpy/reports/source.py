"""Source files, as a profile names them: where they are here, and where in them a function begins and ends."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

LARGEST_SOURCE_BYTES = 32 << 20
"""A larger file is no source code; a profile may name anything."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Source:
    """A source file that was found.

    Attributes:
        path: Where.
        lines: Its lines without their ends; line n is `lines[n - 1]`.
        mtime_ns: When it was last changed, Unix time.
    """

    path: Path
    lines: list[str]
    mtime_ns: int

    def function_around(self, first: int, last: int) -> tuple[int, int] | None:
        """First and last line of the innermost Python function or class that holds lines `first` to `last`."""
        if self.path.suffix not in (".py", ".pyw"):
            return None
        try:
            with warnings.catch_warnings(action="ignore"):
                module = ast.parse("\n".join(self.lines))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        spans = [_span(node) for node in ast.walk(module) if isinstance(node, _FUNCTIONS)]
        around = [span for span in spans if span[0] <= first and last <= span[1]]
        return min(around, key=lambda span: span[1] - span[0], default=None)


class SourceFinder:
    """Looks source files up, each once.

    Args:
        folders: Where to look for what is not at the path that the profile gives.
        trimmed: Prefixes to cut off the profile's paths before that.
    """

    def __init__(self, folders: Sequence[str] = (), trimmed: Sequence[str] = ()) -> None:
        self._folders = [Path(folder) for folder in folders]
        self._prefixes = [prefix.rstrip("/") + "/" for prefix in trimmed]
        self._found: dict[str, Source | None] = {}

    def find(self, name: str) -> Source | None:
        """The file that a profile calls `name`, or None.

        A path that does not exist as it is gets shorter from the left until one of the folders has it.
        """
        if name not in self._found:
            self._found[name] = next(filter(None, map(_read, self._candidates(name))), None)
        return self._found[name]

    def _candidates(self, name: str) -> list[Path]:
        prefix = next((prefix for prefix in self._prefixes if name.startswith(prefix)), "")
        trimmed = PurePosixPath(name.removeprefix(prefix))
        if trimmed.is_absolute() and not self._folders:
            return [Path(trimmed)]
        parts = [part for part in trimmed.parts if part not in ("/", "..")]
        tails = [Path(*parts[start:]) for start in range(len(parts))]
        elsewhere = [folder / tail for tail in tails for folder in self._folders]
        here = Path(trimmed) if trimmed.is_absolute() else Path.cwd() / trimmed
        return [here, *elsewhere]


def _read(path: Path) -> Source | None:
    """A plain file of reasonable size as lines; None for anything else (a device, say, that never ends)."""
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_SOURCE_BYTES:
            return None
        data, mtime_ns = path.read_bytes(), path.stat().st_mtime_ns
    except (OSError, ValueError):
        return None
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError:
        encoding = "utf-8"
    text = data.decode(encoding, "replace").replace("\r\n", "\n").replace("\r", "\n")
    return Source(path, text.split("\n")[: None if not text.endswith("\n") else -1], mtime_ns)


def _span(node: ast.AST) -> tuple[int, int]:
    """First line (decorators included) and last line of a definition."""
    first = min(getattr(item, "lineno", 1 << 60) for item in [node, *getattr(node, "decorator_list", [])])
    return first, getattr(node, "end_lineno", None) or first
