"""Load a compiled BPF program into the kernel; say precisely what is missing where that cannot work."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec

import numpy as np

from pprofpy import arch
from pprofpy.collectors.kernel import syscall as kernel
from pprofpy.collectors.kernel.btf import VMLINUX
from pprofpy.collectors.kernel.bytecode import (
    Bytecode,
    MapShape,
    helpers_in,
    put_in_kernel_functions,
    put_in_parameters,
    renumber_maps,
    resized,
    values_of,
)
from pprofpy.collectors.kernel.compiler import compiled
from pprofpy.collectors.kernel.cpus import online_cpus
from pprofpy.collectors.kernel.maps import MapTable, kernel_facts
from pprofpy.collectors.kernel.perf import (
    clock_event,
    link_perf_event,
    perf_event,
    run_at_event,
    software_event,
    start_event,
)
from pprofpy.collectors.kernel.refusals import refused, refused_program
from pprofpy.collectors.kernel.ring import EventStream, RecordStream
from pprofpy.collectors.kernel.shipped import is_any_shipped, shipped
from pprofpy.collectors.kernel.source import CompilerInput, ProbeSource
from pprofpy.collectors.kernel.types import forget_kernel_types, kernel_types, loop_iterator
from pprofpy.errors import NotPossibleError
from pprofpy.system import privileges
from pprofpy.system.own_memory import peak_bytes
from pprofpy.target import procfs, with_sudo
from pprofpy.target.permission import require_proc, user_namespace_error
from pprofpy.text import counted

_TRACEPOINT, PERF_EVENT, _RAW_TRACEPOINT = 5, 7, 17
_PERF_TYPE_TRACEPOINT = 2

_SHORT_PERIOD_NS = 1_100_000
_SHARES = (0.171, 0.223, 0.277, 0.329)
"""Which part of the timer ticks comes from each of several clocks; no two of them keep step for long."""

_Arguments = ParamSpec("_Arguments")


class Program:
    """A compiled BPF source with its maps, in the kernel until `close()`.

    Args:
        bytecode: What it was compiled to.
        source: The source's name, for messages.
        values: Of its parameters.
        functions: The numbers of the kernel's functions that it calls, in order.

    Attributes:
        remarks: What the user should know, as the recording begins, of what it will not see.

    Raises:
        NotPossibleError: The kernel does not make its maps.
    """

    def __init__(
        self, bytecode: Bytecode, source: str, values: Mapping[str, int] | None = None, functions: Sequence[int] = ()
    ) -> None:
        self._bytecode = bytecode
        self._values = values_of(bytecode, values or {})
        self._kernel_functions = functions
        self._source = source
        self.remarks: list[str] = []
        self._functions: dict[str, int] = {}
        self._maps: dict[str, int] = {}
        self._attachments: list[int] = []
        self._tables: dict[str, MapTable] = {}
        self._streams: list[EventStream | RecordStream] = []
        try:
            for one in bytecode.maps:
                self._maps[one.name] = _make_map(one)
        except BaseException:
            self.close()
            raise
        self._numbers = dict(enumerate(self._maps.values()))

    def load_function(self, name: str, kind: int = _RAW_TRACEPOINT) -> int:
        """Load a function through the verifier; returns its file descriptor.

        Args:
            name: A function of the source.
            kind: A `BPF_PROG_TYPE_*`; by default a raw tracepoint.

        Raises:
            NotPossibleError: The kernel refuses it; the message says why.
        """
        if name not in self._functions:
            code = renumber_maps(self._bytecode.functions[name], self._numbers)
            code = put_in_parameters(code, self._values)
            code = put_in_kernel_functions(code, self._kernel_functions)
            try:
                self._functions[name] = kernel.load_program(kind, code, name)
            except kernel.RefusedError as error:
                raise refused_program(name, self._source, str(error), helpers_in(code)) from error
            except OSError as error:
                raise refused(f"load {name} of {self._source}", error) from error
        return self._functions[name]

    def attach_raw(self, tracepoint: str, function: str) -> None:
        """Run `function` at every `tracepoint`. Raw tracepoints hide nothing from others who watch the same event.

        Raises:
            NotPossibleError: There is no such tracepoint here, or we may not attach to it.
        """
        try:
            self._attachments.append(kernel.open_raw_tracepoint(tracepoint, self.load_function(function)))
        except FileNotFoundError as error:
            raise NotPossibleError(
                f"this kernel has no tracepoint {tracepoint}",
                "it is there from Linux 4.17 on, if the kernel was built with CONFIG_BPF_EVENTS=y",
            ) from error
        except OSError as error:
            raise refused(f"run a program at the tracepoint {tracepoint}", error) from error

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

    def attach_clock(self, function: str, period_ns: int) -> None:
        """Run `function` every `period_ns` on every CPU that is not idle, whatever runs there.

        At short intervals these are a mean: an interrupt by a clock also ends the sleeps that are due within the next
        50 microseconds (the kernel saves interrupts so). What a thread does then in the few microseconds until it
        sleeps again, a single clock would seldom see, since it has only just struck. So it is several, each with a pace
        of its own.
        """
        descriptor = self.load_function(function, PERF_EVENT)
        shares = _SHARES if period_ns <= _SHORT_PERIOD_NS else (1.0,)
        first = len(self._attachments)
        for cpu in online_cpus():
            for share in shares:
                self._attachments.append(clock_event(cpu, round(period_ns / share)))
        for event in self._attachments[first:]:
            run_at_event(descriptor, event)

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
            self._attachments.append(event)
            self._attachments.append(link_perf_event(descriptor, event, cookie))
            start_event(event)

    def table(self, name: str, key: np.dtype[Any], value: np.dtype[Any]) -> MapTable:
        """The map `name`, to be read as arrays of these types.

        Raises:
            PprofpyError: The sizes are not those of the C side.
        """
        if name not in self._tables:
            self._tables[name] = MapTable(self._maps[name], key, value)
        return self._tables[name]

    def refused(self, name: str) -> int:
        """How many entries that we wrote found no room in the map `name`."""
        return self._tables[name].refused if name in self._tables else 0

    def events(self, name: str, dtype: np.dtype[Any]) -> EventStream:
        """The ring buffer `name`, whose records all have this type."""
        stream = EventStream(self._maps[name], dtype)
        self._streams.append(stream)
        return stream

    def records(self, name: str) -> RecordStream:
        """The ring buffer `name`, whose records differ in size."""
        stream = RecordStream(self._maps[name])
        self._streams.append(stream)
        return stream

    def missed(self) -> int:
        """How often the kernel skipped a function because it was already running on that CPU; such events are lost."""
        return sum(kernel_facts(one).get("recursion_misses", 0) for one in self._functions.values())

    def memory(self, stack_count: int = 0) -> str:
        """What a recording takes up, in words.

        Args:
            stack_count: So many stacks are in memory.
        """
        own_mb = peak_bytes() >> 20
        kernel_mb = sum(kernel_facts(one).get("memlock", 0) for one in self._maps.values()) >> 20
        stacks = f", {counted(stack_count, 'stack')} known" if stack_count else ""
        return f"{own_mb} MB of our own at most, {kernel_mb} MB of tables in the kernel{stacks}"

    def run_once(self, function: str) -> None:
        """Run a function of kind raw tracepoint here and now, by the thread that asks.

        Raises:
            NotPossibleError: The kernel does not.
        """
        try:
            kernel.run_program(self.load_function(function))
        except OSError as error:
            raise refused(f"run {function} of {self._source}", error) from error

    def detach(self) -> None:
        """Stop the program; its maps can still be read."""
        while self._attachments:
            os.close(self._attachments.pop())

    def close(self) -> None:
        """Take everything out of the kernel."""
        self.detach()
        while self._streams:
            self._streams.pop().close()
        for descriptor in (*self._functions.values(), *self._maps.values()):
            os.close(descriptor)
        self._functions.clear()
        self._maps.clear()

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def whole_or_nothing(construct: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """For the `__init__` of what holds a Program as `_program`: an error in it takes the program out of the kernel.

    What is attached stays so until it is closed: without this it would go on beside the engine that is tried next.
    """

    @wraps(construct)
    def guarded(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> None:
        try:
            construct(*arguments, **options)
        except BaseException:
            if program := getattr(arguments[0], "_program", None):
                program.close()
            raise

    return guarded


def load(source: ProbeSource, values: Mapping[str, int], sizes: Mapping[str, int] | None = None) -> Program:
    """A program as it came with this package, or else as bcc compiles it.

    Args:
        source: Which.
        values: Of all its parameters: where things lie in the running kernel, pids, thresholds; 0 turns options off.
        sizes: How many entries of a map are wanted (bytes of a ring buffer), where it is not what the source says; 0:
            that map is not used.

    Returns:
        The program, its maps made, nothing attached yet.

    Raises:
        NotPossibleError: A privilege or a kernel feature is missing, or bcc where it is needed; the hint tells how to
            get it.
        PprofpyError: It does not compile; or what came with this package may not be what was built.
    """
    require()
    iterator = loop_iterator()
    unit = CompilerInput.of(source, iterators=bool(iterator))
    ready_made = shipped(unit)
    bytecode = resized(ready_made or compiled(unit), sizes or {})
    program = Program(bytecode, source.file, values, list(iterator.values()))
    forget_kernel_types()
    if not ready_made and is_any_shipped():
        program.remarks.append(f"bcc has compiled {source.file}: it does not come with this pprofpy in the form needed")
    return program


def require() -> None:
    """Check that eBPF programs can run here.

    Raises:
        NotPossibleError: They cannot. The first thing missing is named, with the way to get it.
    """
    if sys.platform != "linux":
        raise NotPossibleError("kernel probes work on Linux only", "py-spy based commands work elsewhere")
    arch.require("kernel probes work")
    require_proc()
    if error := user_namespace_error():
        raise error
    if missing := privileges.lacking(privileges.PROBES):
        raise NotPossibleError(
            f"kernel probes need {privileges.in_words(missing)} (or root)",
            f"run {with_sudo()}; in a container, start it with --cap-add BPF --cap-add PERFMON (or --privileged)",
        )
    if procfs.is_monotonic_clock_shifted():
        raise NotPossibleError(
            "we are in a time namespace whose clock is not the kernel's: all times would be wrong by the difference",
            "run pprofpy in the host's: nsenter --target 1 --time -- pprofpy ...",
        )
    if not VMLINUX.exists():
        kernel_types()


def _make_map(shape: MapShape) -> int:
    """Raises NotPossibleError if the kernel does not give it."""
    sizes = shape.key_bytes, shape.value_bytes, shape.entries, shape.flags
    with suppress(PermissionError):
        return _asked_for_map(shape.kind, *sizes, shape.name)
    # Before Linux 5.11 tables count as locked memory, which is limited.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        return _asked_for_map(shape.kind, *sizes, shape.name)
    except PermissionError as error:
        raise refused("let us make tables", error) from error


def _asked_for_map(kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int, name: str) -> int:
    try:
        return kernel.create_map(kind, key_bytes, value_bytes, entries, flags, name)
    except PermissionError:
        raise
    except OSError as error:
        if error.errno == errno.E2BIG:
            error = OSError(errno.ENOMEM, error.strerror)
        raise refused(f"give room for a table of {entries:,} entries", error) from error
