"""Compile a program with bcc: as the package is built, or where it came without that program.

bcc is the distribution's own (`python3-bpfcc`), a pure Python package over the library libbcc. It is imported by its
path alone, so that any virtual environment can use it without seeing the rest of the system's Python packages.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from pprofpy.collectors.kernel.apart import in_child
from pprofpy.collectors.kernel.bytecode import Bytecode, MapShape, renumber_maps
from pprofpy.collectors.kernel.cache import remembered
from pprofpy.collectors.kernel.maps import kernel_facts
from pprofpy.collectors.kernel.source import HEADERS, CompilerInput
from pprofpy.errors import NotPossibleError, PprofpyError, exhausted_in

_BCC_PLACES = ("/usr/lib/python3/dist-packages/bcc", "/usr/lib/python3*/site-packages/bcc")
_MODULE = "pprofpy_bcc"
"""The name that bcc is imported under: on PyPI `bcc` is an unrelated package, which may well be installed too."""

_FLAGS = ("-Wno-everything", "-Werror=implicit-function-declaration")
_INSTALL_HINT = (
    "install it: 'apt-get install python3-bpfcc' (Debian, Ubuntu), 'dnf install python3-bcc' (Fedora), "
    "'pacman -S python-bcc' (Arch)"
)


def compiled(unit: CompilerInput) -> Bytecode:
    """What bcc makes of a program, now or when it was last asked.

    Raises:
        NotPossibleError: bcc is missing.
        PprofpyError: It does not compile.
    """
    version = (find_bcc() / "version.py").read_text()
    key = (unit.digest, *_FLAGS, version, platform.machine())
    return remembered("bpf", key, lambda: compile_unit(unit).to_json(), Bytecode.from_json)


def compile_unit(unit: CompilerInput) -> Bytecode:
    """Compile with bcc. It makes maps meanwhile: that takes the privileges of `privileges.PROBES`.

    Raises:
        NotPossibleError: bcc is missing.
        PprofpyError: It does not compile.
    """
    return Bytecode.from_json(in_child(lambda: _compile(unit).to_json()))


def find_bcc() -> Path:
    """The folder of bcc's Python package.

    Raises:
        NotPossibleError: There is none.
    """
    for pattern in _BCC_PLACES:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            if (folder / "libbcc.py").exists():
                return folder
    raise NotPossibleError(
        "this pprofpy came without the eBPF program that is needed, and bcc, which would compile it, is not installed",
        _INSTALL_HINT,
    )


def _compile(unit: CompilerInput) -> Bytecode:
    bcc = _import_bcc()
    with _compiler_output() as output, _bare_environment(BCC_KERNEL_SOURCE=str(HEADERS)):
        try:
            module = bcc.BPF(text=unit.text.encode(), cflags=[*_FLAGS, *unit.flags])
        except Exception as error:
            said = output.essence()
            if running_out := exhausted_in(f"{error} {said}"):
                raise running_out from error
            raise PprofpyError(f"{unit.source.file} does not compile here: {error}", said) from error
    try:
        return _extract(bcc.lib, module, unit.parameters)
    finally:
        module.cleanup()


def _extract(lib: Any, module: Any, parameters: tuple[str, ...]) -> Bytecode:
    """The functions and maps of a bcc module. It has made the maps already; their descriptors stand in the code."""
    lib.bpf_num_tables.argtypes, lib.bpf_num_tables.restype = [ctypes.c_void_p], ctypes.c_size_t
    lib.bpf_table_name.argtypes, lib.bpf_table_name.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_char_p
    handle = module.module
    maps: list[MapShape] = []
    numbers: dict[int, int] = {}
    for index in range(lib.bpf_num_tables(handle)):
        name = lib.bpf_table_name(handle, index)
        descriptor = lib.bpf_table_fd(handle, name)
        facts = kernel_facts(descriptor)
        sizes = facts["key_size"], facts["value_size"], facts["max_entries"], lib.bpf_table_flags_id(handle, index)
        numbers[descriptor] = len(maps)
        maps.append(MapShape(name.decode(), facts["map_type"], *sizes))
    names = [lib.bpf_function_name(handle, index) for index in range(lib.bpf_num_functions(handle))]
    functions = {name.decode(): renumber_maps(module.dump_func(name), numbers) for name in names}
    return Bytecode(functions, tuple(maps), parameters)


@cache
def _import_bcc() -> ModuleType:
    """bcc, found by its path, whatever the Python environment."""
    folder = find_bcc()
    spec = importlib.util.spec_from_file_location(
        _MODULE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise NotPossibleError(f"bcc in {folder} cannot be imported", _INSTALL_HINT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    try:
        with warnings.catch_warnings(), _without_bytecode():
            warnings.simplefilter("ignore")
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[_MODULE]
        if running_out := exhausted_in(str(error)):
            raise running_out from error
        raise NotPossibleError(f"bcc in {folder} cannot be imported: {error}", _INSTALL_HINT) from error
    return module


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """Leave no .pyc file in the system's folders: they belong to its package manager."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


class _Output:
    """What the compiler and the verifier wrote while we kept them quiet."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def essence(self, lines: int = 4) -> str:
        """The lines that say what is wrong."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._descriptor), "r", errors="replace") as stream:
            written = [line.strip() for line in stream if line.strip()]
        telling = [line for line in written if re.search(r"\berror\b|invalid|not allowed|too large|unbounded", line)]
        return "; ".join((telling or written)[-lines:])


@contextmanager
def _compiler_output() -> Iterator[_Output]:
    """Keep what C code writes to standard error to ourselves."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with os.fdopen(os.memfd_create("pprofpy-compiler"), "rb") as quiet:  # no folder of others' is written to
            os.dup2(quiet.fileno(), 2)
            try:
                yield _Output(quiet.fileno())
            finally:
                os.dup2(saved, 2)
    finally:
        os.close(saved)


@contextmanager
def _bare_environment(**variables: str) -> Iterator[None]:
    """No environment but these variables: clang takes folders of headers from it (CPATH, C_INCLUDE_PATH ...), bcc a
    kernel's source, and under sudo it may be the caller's."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
