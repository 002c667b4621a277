"""Every eBPF program of every command, in every variant, as bytecode: for tests of the code, and of other kernels.

    python -m tests.kernel_programs FILE [BTF RELEASE]

writes them for scripts/kernel_init.c, compiled for this kernel or for the one whose types are given. Nothing is loaded,
but bcc makes maps as it compiles: it takes root.
"""

from __future__ import annotations

import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest.mock import patch

from pprofpy.collectors.bpf import btf, loader
from pprofpy.collectors.bpf.bytecode import Bytecode
from pprofpy.collectors.bpf.cpu import CpuRecorder, CpuRecorderOptions
from pprofpy.collectors.bpf.native import NativeRecorder
from pprofpy.collectors.bpf.processes import Scope
from pprofpy.collectors.bpf.wall import WallRecorder
from pprofpy.collectors.eventprofile import EventProfileRecorder, choose
from pprofpy.collectors.events import EventRecorder
from pprofpy.collectors.events import Options as TraceOptions
from pprofpy.collectors.gil import GilOptions, GilRecorder
from pprofpy.collectors.offcpu import OffCpuOptions, OffCpuRecorder
from pprofpy.collectors.sched import SchedOptions, SchedRecorder
from pprofpy.collectors.tracepoints import select

ONE = Scope(pid=os.getpid())
CHILDREN = Scope(pid=os.getpid(), children=True)
LATER = Scope(named_later=True)
EVERYBODY = Scope()


def trace(scope: Scope, events: str = "*,sched:*", **options: int) -> Callable[[], object]:
    return lambda: EventRecorder(TraceOptions(select(events.split(",")), scope, **options))  # type: ignore[arg-type]


def off_cpu(scope: Scope, **options: int) -> Callable[[], object]:
    return lambda: OffCpuRecorder(OffCpuOptions(scope, **options))  # type: ignore[arg-type]


def sched_latency(scope: Scope, **options: int) -> Callable[[], object]:
    return lambda: SchedRecorder(SchedOptions(scope, **options))  # type: ignore[arg-type]


VARIANTS: dict[str, Callable[[], object]] = {
    "cpu": lambda: CpuRecorder(CpuRecorderOptions()),
    "cpu --gil -K": lambda: CpuRecorder(CpuRecorderOptions(gil=True, kernel_stacks=True)),
    "cpu --native -K": lambda: NativeRecorder(CpuRecorderOptions(kernel_stacks=True)),
    "cpu --idle": lambda: WallRecorder(CpuRecorderOptions()),
    "cpu --idle -K": lambda: WallRecorder(CpuRecorderOptions(kernel_stacks=True)),
    "gil": lambda: GilRecorder(GilOptions(ONE)),
    "events": lambda: EventProfileRecorder(choose(["page-faults"]), ONE),
    "off-cpu": off_cpu(ONE),
    "off-cpu -K --min": off_cpu(ONE, kernel_stacks=True, min_ns=1000, max_ns=10**9),
    "off-cpu --wakers": off_cpu(CHILDREN, wakers=True),
    "off-cpu of all": off_cpu(EVERYBODY),
    "sched-latency": sched_latency(ONE),
    "sched-latency of all": sched_latency(EVERYBODY, threshold_ns=10**6, trace=True),
    "sched-latency --stacks": sched_latency(CHILDREN, threshold_ns=10**6, trace=True, stacks=True),
    "trace": trace(ONE),
    "trace of all": trace(EVERYBODY),
    "trace -s": trace(ONE, summary=True, lines=False),
    "trace -s of children": trace(CHILDREN, summary=True, slower_than_ns=1000),
    "trace --stacks": trace(ONE, stacks=True, tid=os.getpid()),
    "trace -- COMMAND": trace(LATER),
}
"""By what a user types. Together they set each compile-time switch of each source."""

PERF_EVENT, TRACEPOINT, RAW_TRACEPOINT = 7, 5, 17
KINDS = {"on_clock": PERF_EVENT, "on_software_event": PERF_EVENT, "on_tracepoint": TRACEPOINT}
"""What a function is loaded as; the others are raw tracepoints."""


class CompiledError(Exception):
    """Instead of loading it."""

    def __init__(self, bytecode: Bytecode, source: str) -> None:
        super().__init__(source)
        self.bytecode = bytecode
        self.source = source


class Variant(NamedTuple):
    source: str
    bytecode: Bytecode


def compiled(variant: str) -> Variant:
    """A variant's bytecode.

    Raises:
        NotPossibleError: It cannot be compiled here.
    """

    def stop(bytecode: Bytecode, source: str) -> None:
        raise CompiledError(bytecode, source)

    with patch.object(loader, "Program", stop):
        try:
            VARIANTS[variant]()
        except CompiledError as found:
            return Variant(found.source, found.bytecode)
    raise AssertionError(f"{variant} loads no program")


def packed(name: str, bytecode: Bytecode) -> Iterator[bytes]:
    """For scripts/kernel_init.c: a variant's name, its maps, its functions. References to maps are their places."""
    yield b"V" + name.encode().ljust(63, b"\0")
    for one in bytecode.maps:
        yield b"M" + one.name.encode()[:15].ljust(63, b"\0")
        yield struct.pack("<5I", one.kind, one.key_bytes, one.value_bytes, one.entries, one.flags)
    for function, code in bytecode.functions.items():
        yield b"F" + function.encode().ljust(63, b"\0")
        yield struct.pack("<2I", KINDS.get(function, RAW_TRACEPOINT), len(code) // 8) + code


def main(output: str, types: str = "", release: str = "") -> None:
    with ExitStack() as patches:
        if types:
            patches.enter_context(patch.object(btf, "VMLINUX", Path(types)))
            patches.enter_context(patch.object(loader, "VMLINUX", Path(types)))
            patches.enter_context(patch.object(platform, "release", lambda: release))
            folder = patches.enter_context(TemporaryDirectory())
            patches.enter_context(patch.dict(os.environ, XDG_CACHE_HOME=folder))
        parts = [part for name in VARIANTS for part in packed(name, compiled(name).bytecode)]
    Path(output).write_bytes(b"".join(parts))
    with suppress(BrokenPipeError):
        print(f"{len(VARIANTS)} variants compiled{f' for Linux {release}' if release else ''}")


if __name__ == "__main__":
    main(*sys.argv[1:])
