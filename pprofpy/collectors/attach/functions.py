"""The functions that are called in a target: those of the interpreter that is in use, and of its own C library.

A process may have several files mapped that export them: a libpython beside an interpreter that is linked into the
program, a C library that somebody reads, a file made to mislead. Whoever calls the functions of another one ends the
process. So all of the interpreter's come from the one image that is proved to be in use, all of the C library's from
the only one that is loaded; and each must lie in code that is mapped from the very file that exports it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pprofpy.collectors.attach.ptrace import GoneError, WritableMemory
from pprofpy.collectors.cpython.runtime import living_runtime
from pprofpy.elf import LoadedElf, NotElfError
from pprofpy.errors import NotPossibleError
from pprofpy.target import Target
from pprofpy.target.procfs import MappedArea

_THREAD_FUNCTIONS = ("pthread_create", "pthread_self", "pthread_detach")
_PYTHON_FUNCTIONS = (
    "Py_IsInitialized", "PyGILState_Ensure", "PyGILState_Release", "PyDict_New", "PyRun_StringFlags", "Py_DecRef",
    "PyDict_GetItemString", "PyBytes_AsString", "PyBytes_Size", "PyErr_Clear", "PyEval_SaveThread",
    "PyEval_RestoreThread",
)  # fmt: skip
"""In the order of CALLS in machine.S."""
_C_LIBRARY = re.compile(r"(libc\.so|libc-|libpthread|ld-musl)[^/]*")
_MUSL = re.compile(r"libc\.so|ld-musl-[^/]*")
_MOST_C_LIBRARIES = 64


@dataclass(frozen=True, slots=True)
class Functions:
    """Where they are.

    Attributes:
        pthread_create: Of the C library.
        calls: The others, in the order of CALLS in machine.S.
        interpreter: What is mapped of the interpreter's file.
        libraries: The same of the C library's.
        is_musl: That is musl, or one that is linked into the program.
    """

    pthread_create: int
    calls: tuple[int, ...]
    interpreter: tuple[MappedArea, ...]
    libraries: tuple[MappedArea, ...]
    is_musl: bool


def find_functions(target: Target, memory: WritableMemory, mapped: Sequence[MappedArea]) -> Functions:
    """Find them all.

    Args:
        target: A process with an interpreter.
        memory: Its memory.
        mapped: What is mapped into it, by rising address.

    Raises:
        NotPossibleError: They are not exported, or it is not certain whose they are.
        GoneError: What is mapped has changed meanwhile.
        TargetError: The target has ended.
    """
    start = living_runtime(target).image.start
    head = next((mapping for mapping in mapped if mapping.start == start), None)
    if head is None:
        raise GoneError
    python = _exported(memory, mapped, head, _PYTHON_FUNCTIONS)
    if len(python) < len(_PYTHON_FUNCTIONS):
        raise _not_exported(target, next(name for name in _PYTHON_FUNCTIONS if name not in python))
    library, threads = _c_library(target, memory, mapped, head)
    return Functions(
        pthread_create=threads["pthread_create"],
        calls=tuple(threads[name] for name in _THREAD_FUNCTIONS[1:])
        + tuple(python[name] for name in _PYTHON_FUNCTIONS),
        interpreter=_of_file(mapped, head),
        libraries=_of_file(mapped, library),
        is_musl=bool(_MUSL.fullmatch(library.path.rpartition("/")[2])),
    )


def _c_library(
    target: Target, memory: WritableMemory, mapped: Sequence[MappedArea], interpreter: MappedArea
) -> tuple[MappedArea, dict[str, int]]:
    """The one that is loaded: where its header lies, and its functions. It may be linked into the interpreter."""
    named = [one for one in mapped if not one.offset and _C_LIBRARY.fullmatch(one.path.rpartition("/")[2])]
    found = []
    for head in [*named[:_MOST_C_LIBRARIES], interpreter]:
        threads = _exported(memory, mapped, head, _THREAD_FUNCTIONS)
        if len(threads) == len(_THREAD_FUNCTIONS):
            found.append((head, threads))
    if not found:
        raise _not_exported(target, _THREAD_FUNCTIONS[0])
    if len(found) > 1:
        places = " and ".join(f"{head.path} at {head.start:#x}" for head, _ in found)
        raise NotPossibleError(
            f"{target} cannot be entered: it has several C libraries loaded ({places})",
            "run the program without the second one, or record it from outside: pprofpy cpu",
        )
    return found[0]


def _exported(
    memory: WritableMemory, mapped: Sequence[MappedArea], head: MappedArea, names: Sequence[str]
) -> dict[str, int]:
    """Those of the functions that the image with this header exports, and that lie in its file's code."""
    try:
        found = LoadedElf(memory.read, head.start).functions(names)
    except (NotElfError, OSError):  # no library, or none that is loaded
        return {}
    code = [one for one in _of_file(mapped, head) if one.is_code]
    return {name: at for name, at in found.items() if any(one.start <= at < one.end for one in code)}


def _of_file(mapped: Sequence[MappedArea], head: MappedArea) -> tuple[MappedArea, ...]:
    """What is mapped of the same file."""
    return tuple(one for one in mapped if head.inode and (one.device, one.inode) == (head.device, head.inode))


def _not_exported(target: Target, name: str) -> NotPossibleError:
    return NotPossibleError(
        f"{target} does not export {name}: its interpreter was built without dynamic symbols",
        "run the program with a Python that was built with the usual options",
    )
