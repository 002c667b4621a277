"""All programs that run in the kernel, in each of their variants: what comes compiled with this package."""

from __future__ import annotations

from collections.abc import Iterator

from pprofpy.collectors import events, gil, off_cpu, off_cpu_native, sched_latency, trace
from pprofpy.collectors.kernel import ids
from pprofpy.collectors.kernel.compiler import find_bcc
from pprofpy.collectors.kernel.shipped import shipped
from pprofpy.collectors.kernel.source import CompilerInput, ProbeSource
from pprofpy.collectors.sampling.cpu import CpuRecorder
from pprofpy.collectors.sampling.native import NativeRecorder, NativeWallRecorder
from pprofpy.collectors.sampling.wall import WallRecorder

SOURCES: tuple[ProbeSource, ...] = (
    *(recorder.source for recorder in (CpuRecorder, NativeRecorder, WallRecorder, NativeWallRecorder)),
    off_cpu.SOURCE,
    off_cpu.PYTHON_SOURCE,
    off_cpu_native.NATIVE_SOURCE,
    gil.SOURCE,
    sched_latency.SOURCE,
    sched_latency.PYTHON_SOURCE,
    events.SOURCE,
    ids.SOURCE,
    *(trace.source(size, stacks=stacks) for size in trace.RECORD_BYTES for stacks in (False, True)),
)


def units(machine: str = "") -> Iterator[CompilerInput]:
    """All that is compiled for a kind of machine (by default this one's): for kernels with iterators, and without.

    Raises:
        NotPossibleError: Nothing is known of such machines.
    """
    for source in SOURCES:
        for iterators in (True, False):
            yield CompilerInput.of(source, iterators=iterators, machine=machine)


def origin() -> str:
    """Where programs come from on this machine, in words: this package, or bcc.

    Raises:
        NotPossibleError: From nowhere; or nothing is known of such machines.
        PprofpyError: One that came with this package may not be what was built.
    """
    wanted = list(units())
    lacking = sum(not shipped(unit) for unit in wanted)
    if not lacking:
        return "they came with pprofpy; bcc is not needed"
    return f"bcc in {find_bcc()} compiles them: {lacking} of {len(wanted)} did not come with pprofpy"
