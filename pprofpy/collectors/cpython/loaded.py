"""Where the files of interpreters lie in a process's memory: once, several times, or beside each other.

Files are read through the mapping itself, so that containers, chroots and replaced files do not matter.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass

from pprofpy.elf import Headers, NotElfError, find_symbols, read_headers
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.target import Interpreter, Target, mapped_interpreters, named_files, procfs
from pprofpy.target.named_files import TargetFile
from pprofpy.target.procfs import MappedArea

SYMBOLS = ("_PyRuntime", "PyCode_Type", "Py_Version")
_MOST_IMAGES = 64
"""A process that has more interpreters mapped is refused: which is in use can only be told by trying them all."""

_known: dict[tuple[int, ...], tuple[Headers, dict[str, int]]] = {}
"""What was read of files, by their identity."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An interpreter's file at one place in memory.

    Attributes:
        interpreter: What the file holds.
        start: Where its ELF header lies.
        bias: What to add to the addresses that the file asks for.
        symbols: Those of SYMBOLS that it defines -> their address in the process, if this image is in use.
    """

    interpreter: Interpreter
    start: int
    bias: int
    symbols: dict[str, int]


def loaded_images(target: Target) -> list[LoadedImage]:
    """Every place where an interpreter may be loaded.

    Raises:
        NotPossibleError: There are too many to try.
        TargetError: The process has ended.
    """
    try:
        interpreters, mappings = mapped_interpreters(target.pid), procfs.mappings(target.pid)
    except OSError as error:
        raise TargetError(f"process {target.pid} ended just now") from error
    heads: defaultdict[str, list[MappedArea]] = defaultdict(list)
    for mapping in mappings:
        if not mapping.offset:
            heads[mapping.path].append(mapping)
    places = [(one, head) for one in interpreters for head in heads[one.path]]
    if len(places) > _MOST_IMAGES:
        raise NotPossibleError(
            f"process {target.pid} has interpreters mapped at more than {_MOST_IMAGES} places",
            f"pprofpy cpu --engine py-spy may know it: see pprofpy doctor --pid {target.pid}",
        )
    return [image for one, head in places if (image := _image(target, one, head))]


def _image(target: Target, interpreter: Interpreter, head: MappedArea) -> LoadedImage | None:
    """The file whose header is mapped there; None if it cannot be read."""
    with suppress(OSError, NotElfError), named_files.open_mapped(target.pid, head) as file:
        headers, symbols = _read(file)
        bias = headers.bias(head.start, 0)
        return LoadedImage(interpreter, head.start, bias, {name: at + bias for name, at in symbols.items()})
    return None


def _read(file: TargetFile) -> tuple[Headers, dict[str, int]]:
    if file.identity not in _known:
        headers = read_headers(file.read)
        _known[file.identity] = headers, find_symbols(file.read, headers, SYMBOLS)
    return _known[file.identity]
