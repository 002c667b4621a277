"""Every eBPF program of every command, in every variant, as bytecode: for tests of the code, and of other kernels.

    python -m tests.kernel_programs FILE [BTF RELEASE MACHINE]

writes them for scripts/kernel_init.c, compiled for this kernel or for the one whose types are given, and prints a line
of JSON about each variant. Nothing is loaded, but bcc makes maps as it compiles: it takes root.
"""

from __future__ import annotations

import json
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from pprofpy import arch
from pprofpy.collectors.events import EventProfileRecorder, choose
from pprofpy.collectors.gil import GilOptions, GilRecorder
from pprofpy.collectors.kernel import btf
from pprofpy.collectors.kernel import program as loader
from pprofpy.collectors.kernel.bytecode import (
    Bytecode,
    helpers_in,
    put_in_kernel_functions,
    put_in_parameters,
    values_of,
)
from pprofpy.collectors.kernel.label_options import MOST_VARIABLES, LabelOptions
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.kernel.source import CompilerInput, ProbeSource
from pprofpy.collectors.kernel.tracepoints import select
from pprofpy.collectors.off_cpu import OffCpuOptions, OffCpuRecorder
from pprofpy.collectors.off_cpu_native import NativeOffCpuRecorder
from pprofpy.collectors.sampling.cpu import CpuRecorder, CpuRecorderOptions
from pprofpy.collectors.sampling.native import NativeRecorder, NativeWallRecorder
from pprofpy.collectors.sampling.wall import WallRecorder
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder
from pprofpy.collectors.trace import EventRecorder, TraceOptions
from pprofpy.errors import NotPossibleError
from pprofpy.session import Recorder

Make = Callable[[int], Recorder]
"""Makes a recorder for a process."""


def one(pid: int) -> Scope:
    return Scope(pid)


def with_children(pid: int) -> Scope:
    return Scope(pid, children=True)


def everybody(pid: int) -> Scope:
    return Scope()


def later(pid: int) -> Scope:
    return Scope(named_later=True)


def trace(whose: Callable[[int], Scope], **options: Any) -> Make:
    return lambda pid: EventRecorder(TraceOptions(select(["*", "sched:*"]), whose(pid), **options))


def trace_thread(pid: int) -> Recorder:
    return trace(one, stacks=True, tid=pid)(pid)


def off_cpu(whose: Callable[[int], Scope], **options: Any) -> Make:
    return lambda pid: OffCpuRecorder(OffCpuOptions(whose(pid), **options))


def sched_latency(whose: Callable[[int], Scope], **options: Any) -> Make:
    return lambda pid: SchedRecorder(SchedOptions(whose(pid), **options))


def cpu(recorder: type[CpuRecorder], **options: Any) -> Make:
    return lambda pid: recorder(CpuRecorderOptions(**options))


EVERY_LABEL = LabelOptions.of([f"label{number}=module:name" for number in range(MOST_VARIABLES)], awaiting=True)

VARIANTS: dict[str, Make] = {
    "cpu": cpu(CpuRecorder),
    "cpu --gil -K": cpu(CpuRecorder, gil=True, kernel_stacks=True),
    "cpu --native -K": cpu(NativeRecorder, kernel_stacks=True),
    "cpu --idle": cpu(WallRecorder),
    "cpu --idle -K": cpu(WallRecorder, kernel_stacks=True),
    "cpu --idle --native": cpu(NativeWallRecorder),
    "cpu --tasks": cpu(CpuRecorder, labels=EVERY_LABEL),
    "cpu --tasks --idle --native": cpu(NativeWallRecorder, labels=EVERY_LABEL),
    "gil --tasks": lambda pid: GilRecorder(GilOptions(one(pid), labels=EVERY_LABEL)),
    "events --tasks": lambda pid: EventProfileRecorder(choose(["page-faults"]), one(pid), EVERY_LABEL),
    "off-cpu --tasks --wakers": off_cpu(with_children, wakers=True, labels=EVERY_LABEL),
    "gil": lambda pid: GilRecorder(GilOptions(one(pid))),
    "events": lambda pid: EventProfileRecorder(choose(["page-faults"]), one(pid)),
    "off-cpu": off_cpu(one),
    "off-cpu -K --min": off_cpu(one, kernel_stacks=True, min_ns=1000, max_ns=10**9),
    "off-cpu --wakers": off_cpu(with_children, wakers=True),
    "off-cpu --native": lambda pid: NativeOffCpuRecorder(OffCpuOptions(one(pid))),
    "off-cpu of all": off_cpu(everybody),
    "sched-latency": sched_latency(one),
    "sched-latency of all": sched_latency(everybody, threshold_ns=10**6, trace=True),
    "sched-latency --stacks": sched_latency(with_children, threshold_ns=10**6, trace=True, stacks=True),
    "trace": trace(one),
    "trace of all": trace(everybody),
    "trace -s": trace(one, summary=True, lines=False),
    "trace -s of children": trace(with_children, summary=True, slower_than_ns=1000),
    "trace --stacks": trace_thread,
    "trace -- COMMAND": trace(later),
}
"""By what a user types. Together they set each compile-time switch of each source."""

PERF_EVENT, TRACEPOINT, RAW_TRACEPOINT = 7, 5, 17
KINDS = {"on_clock": PERF_EVENT, "on_software_event": PERF_EVENT, "on_tracepoint": TRACEPOINT}
"""What a function is loaded as; the others are raw tracepoints."""


class CompiledError(Exception):
    """Instead of loading it."""

    def __init__(self, *found: Any) -> None:
        super().__init__()
        self.found = Variant(found[1], found[0], values_of(found[0], found[2]), found[3])


class Variant(NamedTuple):
    source: str
    bytecode: Bytecode
    parameters: Sequence[int]
    functions: Sequence[int]


LOOPS = [
    "cpu --native -K",
    "cpu --idle --native",
    "gil",
    "events",
    "off-cpu --wakers",
    "off-cpu --native",
    "sched-latency --stacks",
    "trace --stacks",
]
"""Variants that have every loop of every source."""


def compiled(variant: str, pid: int = 0, *, iterators: bool = True) -> Variant:
    """A variant's bytecode, and what is put into it for a process (by default for this one).

    Args:
        variant: One of VARIANTS.
        pid: The process; 0 is this one.
        iterators: May it use those of the kernel? Else it is what kernels before Linux 6.4 get.

    Raises:
        NotPossibleError: It cannot be compiled here.
    """

    def stop(bytecode: Bytecode, source: str, values: Mapping[str, int], functions: Sequence[int]) -> None:
        raise CompiledError(bytecode, source, values, functions)

    with ExitStack() as patches:
        patches.enter_context(patch.object(loader, "Program", stop))
        if not iterators:
            patches.enter_context(patch.object(loader, "loop_iterator", dict))
        try:
            VARIANTS[variant](pid or os.getpid()).open()
        except CompiledError as instead:
            return instead.found
    raise AssertionError(f"{variant} loads no program")


class SourceError(Exception):
    """Instead of compiling it."""

    def __init__(self, source: ProbeSource) -> None:
        super().__init__()
        self.source = source


def source_of(variant: str) -> ProbeSource:
    """What a variant is compiled from."""

    def stop(unit: CompilerInput) -> None:
        raise SourceError(unit.source)

    with patch.object(loader, "shipped", stop):
        try:
            VARIANTS[variant](os.getpid()).open()
        except SourceError as instead:
            return instead.source
    raise AssertionError(f"{variant} compiles no program")


def as_loaded(variant: Variant) -> dict[str, bytes]:
    """The code of each function with all that is put into it, but for the maps: their places stand in it."""
    return {
        name: put_in_kernel_functions(put_in_parameters(code, variant.parameters), variant.functions)
        for name, code in variant.bytecode.functions.items()
    }


def packed(name: str, variant: Variant) -> Iterator[bytes]:
    """For scripts/kernel_init.c: a variant's name, its maps, its functions. References to maps are their places."""
    yield b"V" + name.encode().ljust(63, b"\0")
    for one in variant.bytecode.maps:
        yield b"M" + one.name.encode()[:15].ljust(63, b"\0")
        yield struct.pack("<5I", one.kind, one.key_bytes, one.value_bytes, one.entries, one.flags)
    for function, code in as_loaded(variant).items():
        yield b"F" + function.encode().ljust(63, b"\0")
        yield struct.pack("<2I", KINDS.get(function, RAW_TRACEPOINT), len(code) // 8) + code


def about(name: str, variant: Variant) -> dict[str, Any]:
    """What tests.kernel_report must know of a variant, to tell of a refusal as pprofpy does."""
    helpers = {function: sorted(helpers_in(code)) for function, code in as_loaded(variant).items()}
    return {"variant": name, "source": variant.source, "helpers": helpers}


def main(output: str, types: str = "", release: str = "", machine: str = "") -> None:
    parts: list[bytes] = []
    with ExitStack() as patches:
        if types:
            arch.system_call_number("bpf")  # of this machine, which compiles
            patches.enter_context(patch.object(arch, "machine", lambda: machine or arch.FIRST))
            patches.enter_context(patch.object(btf, "VMLINUX", Path(types)))
            patches.enter_context(patch.object(platform, "release", lambda: release))
        for name in VARIANTS:
            try:
                variant = compiled(name)
            except NotPossibleError as error:
                print(json.dumps({"variant": name, "refused": error.message}))
                continue
            parts += packed(name, variant)
            print(json.dumps(about(name, variant)))
    Path(output).write_bytes(b"".join(parts))


if __name__ == "__main__":
    main(*sys.argv[1:])
