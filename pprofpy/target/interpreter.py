"""Recognizing the Python in a process.

A process is Python if a CPython or PyPy is mapped into it, whatever its name: virtual environments, uWSGI and other
embedders count, a shell script called python.sh does not.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pprofpy.budget import Budget
from pprofpy.elf import ALL_SYMBOLS, Headers, NotElfError, Read, find_symbols, read_headers
from pprofpy.errors import ImplausibleTargetError
from pprofpy.target import named_files, procfs
from pprofpy.target.named_files import TargetFile
from pprofpy.target.procfs import MappedArea

PROGRAM_NAME = re.compile(r"(?P<kind>python|pypy)(?P<version>\d+\.\d+)?\d*t?d?(-dbg)?")
LOADER_NAME = re.compile(r"ld[\w.-]*\.so[\d.]*")
_LIBRARY = re.compile(r"lib(?P<kind>python|pypy)(?P<version>\d+\.\d+)?[\w-]*\.so")
_FORWARDER = re.compile(r"libpython3t?d?\.so")
_STANDARD_LIBRARY = re.compile(r"/lib(?:64)?/(?:python|pypy)(\d+\.\d+)t?/")
_RUNTIME_SYMBOL = "_PyRuntime"
_VERSION = re.compile(rb"3\.(?:[6-9]|[1-9]\d)\.\d{1,3}(?:[abrc]{1,2}\d{1,3})?\+?(?=\0)")
_MOST_LIBRARIES = 16
_MOST_READ_BYTES, _LONGEST_S = 256 << 20, 2.0
"""What is read of one process's files, and how long that may take."""
_MOST_CONSTANT_BYTES = 32 << 20
"""In which versions are searched for; CPython has two megabytes."""
_CHUNK_BYTES, _LONGEST_CONSTANT, _MOST_NUMBERS = 1 << 20, 32, 1000
_NUMBER_PARTS = {bytes([char]) for char in b"0123456789."}


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python inside a process.

    Attributes:
        implementation: CPython or PyPy.
        version: As exact as can be told without running anything: `3.11.7`, `3.11`, or empty.
        is_shared: In a libpython of its own, as opposed to linked into the program.
        is_stripped: Without a symbol table.
        path: The file that holds it, as the target sees it.
    """

    implementation: str
    version: str
    is_shared: bool
    is_stripped: bool
    path: str

    def __str__(self) -> str:
        build = ("shared" if self.is_shared else "static") + (", stripped" if self.is_stripped else "")
        return f"{self.implementation} {self.version or '(version unknown)'} ({build})"


NO_PYTHON = Interpreter("", "", is_shared=False, is_stripped=False, path="")
"""Of a program that only starts others."""


def find_interpreter(pid: int) -> Interpreter | None:
    """The Python mapped into a process, None if there is none: the likeliest of its candidates.

    Raises:
        PermissionError: We may not read its memory map.
        OSError: It has ended.
    """
    return next(iter(mapped_interpreters(pid)), None)


def mapped_interpreters(pid: int) -> list[Interpreter]:
    """Every interpreter whose file is mapped into a process, the likeliest to be in use first.

    Only its memory tells which one is: see `collectors.cpython.runtime.living_runtime`.

    Raises:
        PermissionError: We may not read its memory map.
        OSError: It has ended.
        ImplausibleTargetError: It has more interpreters than any program.
    """
    mapped = _mapped_files(pid)
    if not mapped:
        return []
    program, open_own = procfs.program(pid), _opener(pid, None)
    if LOADER_NAME.fullmatch(program.rpartition("/")[2]):  # started as `ld.so PROGRAM`
        program = next((path for path in mapped if PROGRAM_NAME.fullmatch(path.rpartition("/")[2])), program)
        open_own = _opener(pid, mapped.get(program))
    known = {match[1] for path in [program, *mapped] if (match := _STANDARD_LIBRARY.search(path))}
    version = known.pop() if len(known) == 1 else ""
    libraries = [(path, match) for path in mapped if (match := _LIBRARY.match(path.rpartition("/")[2]))]
    if len(libraries) > _MOST_LIBRARIES:
        raise ImplausibleTargetError(f"process {pid} has {len(libraries)} different libraries of Python mapped")
    reader = _Reader(pid)
    found = [
        _interpreter(path, match, reader.contents(_opener(pid, mapped[path])), version) for path, match in libraries
    ]
    named = PROGRAM_NAME.fullmatch(program.rpartition("/")[2])
    if (named and not found) or reader.contents(open_own, with_versions=False).has_runtime:
        found.insert(0, _interpreter(program, named, reader.contents(open_own), version, is_shared=False))
    own = (named and named["version"]) or ""
    return sorted(found, key=lambda one: (_is_forwarder(one), not one.version.startswith(own)))


def _interpreter(
    path: str, match: re.Match[str] | None, contents: _Contents, version: str, *, is_shared: bool = True
) -> Interpreter:
    """What one file holds; `version` is that of the standard library in use, for files whose name does not tell."""
    kind = match["kind"] if match else "python"
    version = (match["version"] if match else None) or version
    return Interpreter(
        implementation="PyPy" if kind == "pypy" else "CPython",
        version=version if kind == "pypy" else contents.exact_version(version),
        is_shared=is_shared,
        is_stripped=not contents.has_symbols,
        path=path,
    )


def _is_forwarder(interpreter: Interpreter) -> bool:
    """Is this the stable ABI's library, which only depends on the one with the interpreter? Source: PEP 384."""
    return _FORWARDER.match(interpreter.path.rpartition("/")[2]) is not None


def _mapped_files(pid: int) -> dict[str, MappedArea]:
    """The files mapped into a process -> the first mapping of each."""
    found: dict[str, MappedArea] = {}
    for mapping in procfs.mappings(pid):
        if mapping.path:
            found.setdefault(mapping.path, mapping)
    return found


def _opener(pid: int, mapping: MappedArea | None) -> Callable[[], TargetFile]:
    """Opens what is mapped there; without a mapping, the process's program."""
    return lambda: named_files.open_mapped(pid, mapping) if mapping else named_files.open_program(pid)


# -- reading a file ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Contents:
    """What a file holds; nothing, if it cannot be read."""

    has_runtime: bool = False
    has_symbols: bool = False
    versions: frozenset[str] = frozenset()

    def exact_version(self, version: str) -> str:
        """Refine `3.11` to `3.11.7`: PY_VERSION is a string constant of every CPython.

        Without a version to start from, the answer is only given if the file holds a single candidate.
        """
        found = [one for one in self.versions if not version or one.startswith(version + ".")]
        return found[0] if len(found) == 1 else version


_known: dict[tuple[tuple[int, ...], bool], _Contents] = {}
"""By the file's identity, and whether versions were searched for: each file is read only once."""


class _Reader:
    """Reads the files of one process, within what may be spent on it.

    Raises:
        ImplausibleTargetError: There is more to read than in any program.
    """

    def __init__(self, pid: int) -> None:
        self._budget = Budget(f"the files of process {pid}", size=_MOST_READ_BYTES, seconds=_LONGEST_S)

    def contents(self, open_file: Callable[[], TargetFile], *, with_versions: bool = True) -> _Contents:
        """What a file holds."""
        try:
            with open_file() as file:
                key = file.identity, with_versions
                if key not in _known:
                    _known[key] = self._contents(file, with_versions=with_versions)
                return _known[key]
        except (OSError, NotElfError):
            return _Contents()

    def _contents(self, file: TargetFile, *, with_versions: bool) -> _Contents:
        def read(offset: int, size: int) -> bytes:
            self._budget.take(max(0, min(size, file.size - offset)))
            return file.read(offset, size)

        headers = read_headers(read)
        return _Contents(
            has_runtime=_RUNTIME_SYMBOL in find_symbols(read, headers, [_RUNTIME_SYMBOL]),
            has_symbols=headers.section(ALL_SYMBOLS) is not None,
            versions=frozenset(_versions(read, headers)) if with_versions else frozenset(),
        )


def _versions(read: Read, headers: Headers) -> set[str]:
    """What could be the interpreter's version, among the file's constants."""
    found: set[str] = set()
    for content in constants(read, headers):
        matches = itertools.islice(_VERSION.finditer(content, 1), _MOST_NUMBERS)
        found.update(match[0].decode("ascii") for match in matches if _stands_alone(match, content))
    return found


def constants(read: Read, headers: Headers) -> Iterator[bytes]:
    """A file's constants, in pieces: each begins with the byte before it, and what is short is whole in one of them."""
    for section in headers.sections:
        if section.is_constant and section.size <= _MOST_CONSTANT_BYTES:
            for start in range(section.offset, section.offset + section.size, _CHUNK_BYTES):
                size = min(_CHUNK_BYTES + _LONGEST_CONSTANT, section.offset + section.size - start)
                yield read(max(0, start - 1), size + 1)


def _stands_alone(match: re.Match[bytes], content: bytes) -> bool:
    """Is it no part of a longer number? Asked afterwards: a pattern that begins with a literal is 30 times as fast."""
    return content[match.start() - 1 : match.start()] not in _NUMBER_PARTS
