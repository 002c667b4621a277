"""Compile a BPF program with bcc and load it; say precisely what is missing where that cannot work.

bcc is the distribution's own (`python3-bpfcc`), a pure Python package over the library libbcc. It is imported by its
path alone, so that any virtual environment can use it without seeing the rest of the system's Python packages.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np

from pprofpy.collectors.bpf.btf import VMLINUX, Btf
from pprofpy.collectors.bpf.events import EventStream, RecordStream
from pprofpy.collectors.bpf.perf import (
    clock_event,
    link_perf_event,
    online_cpus,
    perf_event,
    run_at_event,
    software_event,
    start_event,
)
from pprofpy.collectors.bpf.tables import Table, kernel_facts
from pprofpy.errors import NotPossibleError, PprofpyError
from pprofpy.target import with_sudo

FOLDER = Path(__file__).parent
"""Where the C files are."""

_HEADERS = FOLDER / "headers"
_BCC_PLACES = ("/usr/lib/python3/dist-packages/bcc", "/usr/lib/python3*/site-packages/bcc")
_MODULE = "pprofpy_bcc"
"""The name that bcc is imported under: on PyPI `bcc` is an unrelated package, which may well be installed too."""

_TRACEPOINT, PERF_EVENT, _RAW_TRACEPOINT = 5, 7, 17
_VERIFIER_LOG = 2
_CAP_SYS_ADMIN, _CAP_PERFMON, _CAP_BPF = 21, 38, 39
_PERF_TYPE_TRACEPOINT = 2
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"

_INSTALL_HINT = (
    "install it: 'apt-get install python3-bpfcc' (Debian, Ubuntu), 'dnf install python3-bcc' (Fedora), "
    "'pacman -S python-bcc' (Arch)"
)


class Program:
    """A compiled BPF source with its maps, in the kernel until `close()`.

    Raises:
        PprofpyError: The kernel's verifier refused a function, or a tracepoint does not exist.
    """

    def __init__(self, bcc: ModuleType, module: Any, source: str) -> None:
        self._bcc = bcc
        self._module = module
        self._source = source
        self._functions: dict[str, int] = {}
        self._maps: dict[str, int] = {}
        self._attachments: list[int] = []
        self._streams: list[EventStream | RecordStream] = []

    def load_function(self, name: str, kind: int = _RAW_TRACEPOINT) -> int:
        """Load a function through the verifier; returns its file descriptor.

        Args:
            name: A function of the source.
            kind: A `BPF_PROG_TYPE_*`; by default a raw tracepoint.
        """
        if name in self._functions:
            return self._functions[name]
        with _compiler_output() as output:
            try:
                descriptor = int(self._module.load_func(name.encode(), kind).fd)
                return self._functions.setdefault(name, descriptor)
            except Exception as error:
                if "Argument list too long" not in str(error):  # too large: the log would be, too
                    self._module.debug = _VERIFIER_LOG
                    with suppress(Exception):
                        self._module.load_func(name.encode(), kind)  # again, only to hear why
                raise PprofpyError(f"the kernel refused {self._source}: {error}", output.essence()) from error

    def attach_raw(self, tracepoint: str, function: str) -> None:
        """Run `function` at every `tracepoint`. Raw tracepoints hide nothing from others who watch the same event."""
        attached = self._bcc.lib.bpf_attach_raw_tracepoint(self.load_function(function), tracepoint.encode())
        if attached < 0:
            raise NotPossibleError(
                f"this kernel has no tracepoint {tracepoint} ({os.strerror(ctypes.get_errno())})",
                "it is there from Linux 4.17 on, if the kernel was built with CONFIG_BPF_EVENTS=y",
            )
        self._attachments.append(attached)

    def attach_tracepoint(self, number: int, function: str, cookie: int) -> None:
        """Run `function` at a tracepoint, with the record that the kernel makes of the event as its argument.

        Args:
            number: The tracepoint's, from its description.
            function: Must return 1: 0 would hide the event from everybody else.
            cookie: What `bpf_get_attach_cookie` tells the function, so that one serves many tracepoints.
        """
        descriptor = self.load_function(function, _TRACEPOINT)
        event = perf_event(_PERF_TYPE_TRACEPOINT, number)
        self._attachments.append(event)
        self._attachments.append(link_perf_event(descriptor, event, cookie))

    def attach_clock(self, function: str, period_ns: int) -> int:
        """Run `function` at regular intervals on every CPU, whatever runs there; returns how many CPUs there are."""
        descriptor = self.load_function(function, PERF_EVENT)
        events = [clock_event(cpu, period_ns) for cpu in online_cpus()]
        self._attachments += events
        for event in events:
            run_at_event(descriptor, event)
        return len(events)

    def attach_software_event(self, number: int, function: str, cookie: int) -> None:
        """Run `function` each time that the kernel raises one of its software events, on every CPU.

        Args:
            number: `PERF_COUNT_SW_*`.
            function: Takes a `struct bpf_perf_event_data`.
            cookie: What `bpf_get_attach_cookie` tells it.
        """
        descriptor = self.load_function(function, PERF_EVENT)
        for cpu in online_cpus():
            event = software_event(cpu, number, period=1)
            self._attachments += [event, link_perf_event(descriptor, event, cookie)]
            start_event(event)

    def table(self, name: str, key: np.dtype[Any], value: np.dtype[Any]) -> Table:
        """The map `name`, to be read as arrays of these types.

        Raises:
            PprofpyError: The sizes are not those of the C side.
        """
        return Table(self._bcc.lib, self._map(name), key, value)

    def events(self, name: str, dtype: np.dtype[Any]) -> EventStream:
        """The ring buffer `name`, whose records all have this type."""
        stream = EventStream(self._map(name), dtype)
        self._streams.append(stream)
        return stream

    def records(self, name: str) -> RecordStream:
        """The ring buffer `name`, whose records differ in size."""
        stream = RecordStream(self._map(name))
        self._streams.append(stream)
        return stream

    def missed(self) -> int:
        """How often the kernel skipped a function because it was already running on that CPU; such events are lost."""
        return sum(kernel_facts(function.fd).get("recursion_misses", 0) for function in self._module.funcs.values())

    def memory_bytes(self) -> int:
        """What the maps that are in use here take up in the kernel."""
        return sum(kernel_facts(descriptor).get("memlock", 0) for descriptor in self._maps.values())

    def detach(self) -> None:
        """Stop the program; its maps can still be read."""
        while self._attachments:
            os.close(self._attachments.pop())

    def close(self) -> None:
        """Take everything out of the kernel."""
        self.detach()
        while self._streams:
            self._streams.pop().close()
        self._module.cleanup()

    def _map(self, name: str) -> int:
        """A map's file descriptor."""
        descriptor = int(self._bcc.lib.bpf_table_fd(self._module.module, name.encode()))
        return self._maps.setdefault(name, descriptor)

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load(
    source: str,
    constants: Mapping[str, int] | None = None,
    layouts: Mapping[str, np.dtype[Any]] | None = None,
) -> Program:
    """Compile one of the C files of this package.

    Args:
        source: The file's name.
        constants: What to define (`-DNAME=value`) when compiling.
        layouts: C structs and the types that we read them as; the compiler checks size and offset of every field.

    Returns:
        The program, its maps made, nothing attached yet.

    Raises:
        NotPossibleError: bcc, a privilege or a kernel feature is missing; the hint tells how to get it.
        PprofpyError: It does not compile.
    """
    require()
    bcc = _import_bcc()
    text = _source_text(source) + _layout_checks(layouts or {})
    flags = [f"-D{name}={value}" for name, value in (constants or {}).items()]
    with _compiler_output() as output, _environment("BCC_KERNEL_SOURCE", str(_HEADERS)):
        try:
            module = bcc.BPF(text=text.encode(), cflags=["-Wno-everything", "-Werror=implicit-function-declaration", *flags])
        except Exception as error:
            raise PprofpyError(f"{source} does not compile here: {error}", output.essence()) from error
    return Program(bcc, module, source)


def require() -> None:
    """Check that eBPF programs can run here.

    Raises:
        NotPossibleError: They cannot. The first thing missing is named, with the way to get it.
    """
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise NotPossibleError("kernel probes work on Linux on x86-64 only", "py-spy based commands work elsewhere")
    missing = _missing_privilege()
    if missing:
        raise NotPossibleError(
            f"kernel probes need {missing}",
            f"run {with_sudo()}; in a container, start it with --cap-add BPF --cap-add PERFMON (or --privileged)",
        )
    if str(Path("/proc/self/ns/pid").readlink()) != _INITIAL_PID_NAMESPACE:
        raise NotPossibleError(
            "we are in a pid namespace of our own, where the kernel's thread numbers mean nothing",
            "run pprofpy on the host, or start the container with --pid=host",
        )
    if not VMLINUX.exists():
        Btf.of_running_kernel()
    _import_bcc()


@cache
def kernel_types() -> Btf:
    """The running kernel's type information, read once."""
    return Btf.of_running_kernel()


# -- what is missing -----------------------------------------------------------------------------------------------


def _missing_privilege() -> str:
    """The capabilities that this process lacks, in words; empty if it has what it needs."""
    status = Path("/proc/self/status").read_text()
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    held = int(match[1], 16) if match else 0
    if held >> _CAP_SYS_ADMIN & 1:
        return ""
    wanted = {"CAP_BPF": _CAP_BPF, "CAP_PERFMON": _CAP_PERFMON}
    lacking = [name for name, number in wanted.items() if not held >> number & 1]
    return f"{' and '.join(lacking)} (or root)" if lacking else ""


@cache
def _import_bcc() -> ModuleType:
    """bcc, found by its path, whatever the Python environment."""
    for pattern in _BCC_PLACES:
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            if (folder / "libbcc.py").exists():
                return _import_package(folder)
    raise NotPossibleError("bcc is not installed", _INSTALL_HINT)


def _import_package(folder: Path) -> ModuleType:
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


# -- compiling -----------------------------------------------------------------------------------------------------


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
        with tempfile.TemporaryFile() as quiet:
            os.dup2(quiet.fileno(), 2)
            try:
                yield _Output(quiet.fileno())
            finally:
                os.dup2(saved, 2)
    finally:
        os.close(saved)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
