"""Compile a C file of this package with bcc.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from pprofpy.collectors.kernel.apart import in_child
from pprofpy.collectors.kernel.bytecode import Bytecode, MapShape, kernel_function, parameter, renumber_maps
from pprofpy.collectors.kernel.cache import remembered
from pprofpy.collectors.kernel.maps import kernel_facts
from pprofpy.errors import NotPossibleError, PprofpyError, exhausted_in

FOLDER = Path(__file__).parents[1] / "probes"
"""Where the C files are."""

_HEADERS = FOLDER / "headers"
_BCC_PLACES = ("/usr/lib/python3/dist-packages/bcc", "/usr/lib/python3*/site-packages/bcc")
_MODULE = "pprofpy_bcc"
"""The name that bcc is imported under: on PyPI `bcc` is an unrelated package, which may well be installed too."""

_FLAGS = ("-Wno-everything", "-Werror=implicit-function-declaration")
_INSTALL_HINT = (
    "install it: 'apt-get install python3-bpfcc' (Debian, Ubuntu), 'dnf install python3-bcc' (Fedora), "
    "'pacman -S python-bcc' (Arch)"
)


def compile_source(
    source: str,
    constants: Mapping[str, int],
    layouts: Mapping[str, np.dtype[Any]],
    parameters: Sequence[str] = (),
    functions: Sequence[str] = (),
) -> Bytecode:
    """Compile one of the C files of this package, or take what came out of it the last time.

    Args:
        source: The file's name.
        constants: What to define (`-DNAME=value`) when compiling.
        layouts: C structs and the types that we read them as; the compiler checks size and offset of every field.
        parameters: Names of what is defined when it is loaded, in the order in which `put_in_parameters` takes them.
        functions: Those of the kernel's that it may call, in the order in which `put_in_kernel_functions` takes them.

    Raises:
        NotPossibleError: bcc is missing.
        PprofpyError: It does not compile.
    """
    defined = [f"#define {name} {parameter(place)}\n" for place, name in enumerate(parameters)]
    defined += [f"#define {name.upper()} {kernel_function(place)}\n" for place, name in enumerate(functions)]
    text = "".join(defined) + _source_text(source) + _layout_checks(layouts)
    flags = [*_FLAGS, *(f"-D{name}={value}" for name, value in constants.items())]
    headers = [path.read_text() for path in sorted(_HEADERS.rglob("*.h"))]
    version = (find_bcc() / "version.py").read_text()
    key = (text, *flags, *headers, version, platform.machine(), platform.release())
    return remembered("bpf", key, lambda: in_child(lambda: _compile(source, text, flags).to_json()), Bytecode.from_json)


def find_bcc() -> Path:
    """The folder of bcc's Python package.

    Raises:
        NotPossibleError: There is none.
    """
    for pattern in _BCC_PLACES:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            if (folder / "libbcc.py").exists():
                return folder
    raise NotPossibleError("bcc is not installed", _INSTALL_HINT)


def _compile(source: str, text: str, flags: list[str]) -> Bytecode:
    bcc = _import_bcc()
    with _compiler_output() as output, _bare_environment(BCC_KERNEL_SOURCE=str(_HEADERS)):
        try:
            module = bcc.BPF(text=text.encode(), cflags=flags)
        except Exception as error:
            said = output.essence()
            if running_out := exhausted_in(f"{error} {said}"):
                raise running_out from error
            raise PprofpyError(f"{source} does not compile here: {error}", said) from error
    try:
        return _extract(bcc.lib, module)
    finally:
        module.cleanup()


def _extract(lib: Any, module: Any) -> Bytecode:
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
    return Bytecode({name.decode(): renumber_maps(module.dump_func(name), numbers) for name in names}, tuple(maps))


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


# -- the text -----------------------------------------------------------------------------------------------------


def _source_text(name: str) -> str:
    """A C file with our own headers put in place: bcc understands maps only in the file that it is given."""
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((FOLDER / name).read_text().splitlines(), 1):
        if match := re.fullmatch(r'#include "([\w.]+)"', line):
            lines += [_source_text(match[1]), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines)


def _layout_checks(layouts: Mapping[str, np.dtype[Any]]) -> str:
    """C assertions that a struct has exactly the size and the field offsets of the NumPy type it is read as."""
    checks = ['#line 1 "layout checks"']
    for name, dtype in layouts.items():
        checks.append(f'_Static_assert(sizeof(struct {name}) == {dtype.itemsize}, "size of {name}");')
        for field, (_, offset, *_) in (dtype.fields or {}).items():
            place = f"__builtin_offsetof(struct {name}, {field})"
            checks.append(f'_Static_assert({place} == {offset}, "{name}.{field}");')
    return "\n" + "\n".join(checks) + "\n"


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
