"""The library: what the recording commands do, for Python programs. `pprofpy` hands these names on when they are used.

Unlike the commands, it keeps the privileges of the program that calls it, prints nothing, and leaves Ctrl-C alone. Each
function returns when the recording has begun; a thread of its own makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pprofpy.errors import NotPossibleError, UsageError
from pprofpy.model.recording import Recording
from pprofpy.recorded import Recorded, load
from pprofpy.running import Running
from pprofpy.session import Recorder, Stop
from pprofpy.target import Target, open_target
from pprofpy.target.permission import require_proc
from pprofpy.units import NS_PER_S

if TYPE_CHECKING:
    from pprofpy.collectors.kernel.scope import Scope

__all__ = [
    "Recorded",
    "load",
    "record_cpu",
    "record_events",
    "record_gil",
    "record_heap",
    "record_off_cpu",
    "record_sched_latency",
    "record_trace",
]


def record_cpu(
    pid: int,
    seconds: float | None = 30,
    *,
    rate_hz: int = 100,
    threads_with_gil: bool = False,
    idle: bool = False,
    native: bool = False,
    subprocesses: bool = False,
    kernel_stacks: bool = False,
    labels: Sequence[str] = (),
    tasks: bool = False,
    engine: str = "auto",
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """Where a process spends CPU time: sampled, as `pprofpy cpu` does.

    Args:
        pid: The process.
        seconds: How long; None for as long as it lives.
        rate_hz: Samples per second of CPU time.
        threads_with_gil: Count only threads that hold the interpreter lock.
        idle: Count waiting threads, too: wall-clock time.
        native: C, C++ and Rust functions, too.
        subprocesses: The processes that it starts, too.
        kernel_stacks: What the kernel did for it, too.
        labels: Context variables to label samples with, each as `label=module:variable`.
        tasks: Put the stacks of the asyncio tasks that await the running one below it. Its name is a label, anyway.
        engine: `auto`, `bpf` or `py-spy`.
        window_seconds: How long a window of `Recorded.windows` is.
        stop: Ends it early, as `Recorded.stop` does; a `threading.Event`, say, of several recordings.

    Returns:
        The recording, which has begun.

    Raises:
        UsageError: The arguments make no sense.
        TargetError: There is no such process, or it ended too early.
        TargetPermissionError: It may not be recorded.
        NotPossibleError: No engine can do it here.
    """
    from pprofpy.collectors.cpu import CpuEngines
    from pprofpy.collectors.kernel.label_options import LabelOptions
    from pprofpy.collectors.sampling.cpu_options import CpuOptions

    options = CpuOptions(
        rate_hz=rate_hz, duration_ns=_ns(seconds), native=native, gil=threads_with_gil, idle=idle,
        subprocesses=subprocesses, kernel_stacks=kernel_stacks, labels=LabelOptions.of(labels, awaiting=tasks),
    )  # fmt: skip
    target, length = _target(pid), _Length.of(seconds, window_seconds)

    def make(running: Running) -> Recording:
        with CpuEngines(engine, options, lambda words: None) as engines:
            while True:
                with closing(engines.start(target, running)) as recorder:
                    try:
                        return _noted(length.record(running, recorder, target), engines.notes)
                    except NotPossibleError as error:
                        engines.refuse(error)  # which raises it unless another engine is left

    return _started(make, stop)


def record_off_cpu(
    pid: int | None,
    seconds: float | None = 30,
    *,
    min_seconds: float = 0,
    max_seconds: float = 0,
    wakers: bool = False,
    subprocesses: bool = False,
    kernel_stacks: bool = False,
    labels: Sequence[str] = (),
    tasks: bool = False,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """Where threads block, why and for how long, as `pprofpy off-cpu` does.

    Args:
        pid: The process; None for the whole system.
        min_seconds, max_seconds: Only times off the CPU within these; 0 for no bound.
        wakers: Put the stack of whoever ended a wait on top of it.
        seconds, subprocesses, kernel_stacks, labels, tasks, window_seconds, stop: As for `record_cpu`.

    Raises:
        UsageError, TargetError, NotPossibleError: As for `record_cpu`.
    """
    from pprofpy.collectors.kernel.label_options import LabelOptions
    from pprofpy.collectors.off_cpu import OffCpuOptions, OffCpuRecorder

    def begin(scope: Scope) -> Recorder:
        wanted = LabelOptions.of(labels, awaiting=tasks)
        bounds = round(min_seconds * NS_PER_S), round(max_seconds * NS_PER_S)
        return OffCpuRecorder(OffCpuOptions(scope, *bounds, kernel_stacks, wakers, wanted))

    return _started_in_kernel(pid, begin, subprocesses, _Length.of(seconds, window_seconds), stop)


def record_gil(
    pid: int,
    seconds: float | None = 30,
    *,
    rate_hz: int | None = None,
    subprocesses: bool = False,
    labels: Sequence[str] = (),
    tasks: bool = False,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """Who waits for the interpreter lock, for how long, and who holds it, as `pprofpy gil` does.

    Args:
        rate_hz: Samples per second of who runs with the lock.
        pid, seconds, subprocesses, labels, tasks, window_seconds, stop: As for `record_cpu`.

    Returns:
        Waits in the profile; `tables` has the holders, the threads and the slices of time.

    Raises:
        UsageError, TargetError, NotPossibleError: As for `record_cpu`; it may also have no such lock.
    """
    from pprofpy.collectors.gil import DEFAULT_RATE_HZ, GilOptions, GilRecorder
    from pprofpy.collectors.kernel.label_options import LabelOptions

    def begin(scope: Scope) -> Recorder:
        wanted = LabelOptions.of(labels, awaiting=tasks)
        return GilRecorder(GilOptions(scope, rate_hz or DEFAULT_RATE_HZ, labels=wanted))

    return _started_in_kernel(pid, begin, subprocesses, _Length.of(seconds, window_seconds), stop)


def record_sched_latency(
    pid: int | None,
    seconds: float | None = 30,
    *,
    stacks: bool = False,
    subprocesses: bool = False,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """How long threads that could run waited for a CPU, as `pprofpy sched-latency` does.

    Args:
        pid: The process; None for the whole system.
        stacks: Also by Python stack: where they waited, and who woke them. Not for the whole system.
        seconds, subprocesses, window_seconds, stop: As for `record_cpu`.

    Raises:
        UsageError, TargetError, NotPossibleError: As for `record_cpu`.
    """
    from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder

    if stacks and pid is None:
        raise UsageError("stacks need a process", "give its pid")

    def begin(scope: Scope) -> Recorder:
        return SchedRecorder(SchedOptions(scope, stacks=stacks))

    return _started_in_kernel(pid, begin, subprocesses, _Length.of(seconds, window_seconds), stop)


def record_events(
    pid: int,
    events: Sequence[str],
    seconds: float | None = 30,
    *,
    weight: str = "",
    subprocesses: bool = False,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """How often kernel events happen, by Python stack, as `pprofpy events` does.

    Args:
        events: Tracepoints, system calls, `page-faults`, `context-switches`; with wildcards.
        weight: Add up this field of a tracepoint, too.
        pid, seconds, subprocesses, window_seconds, stop: As for `record_cpu`.

    Raises:
        UsageError: There is no such event or field.
        TargetError, NotPossibleError: As for `record_cpu`.
    """
    from pprofpy.collectors.events import EventProfileRecorder, choose

    wanted = choose(events, weight)

    def begin(scope: Scope) -> Recorder:
        return EventProfileRecorder(wanted, scope)

    return _started_in_kernel(pid, begin, subprocesses, _Length.of(seconds, window_seconds), stop)


def record_heap(
    pid: int,
    seconds: float | None = 30,
    *,
    engine: str = "auto",
    sample_bytes: int | None = None,
    frames: int = 0,
    snapshots: int = 1,
    collect: bool = False,
    types: bool = False,
    subprocesses: bool = False,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """Which code allocates a process's memory, and what of it stays in use, as `pprofpy heap` does.

    Args:
        engine: `auto`, `sampling` or `tracemalloc`.
        sample_bytes: One sample in so many bytes, on average.
        frames: Depth of stacks; 0 for what is usual with the engine.
        snapshots: So many, evenly spaced, to tell what grows.
        collect: Run the garbage collector before each snapshot.
        types: Also the types with the biggest objects.
        subprocesses: The processes that it starts, too, each under a label `pid`; not with `snapshots` or `types`.
        pid, seconds, window_seconds, stop: As for `record_cpu`. A window holds all since the beginning.

    Raises:
        UsageError, TargetError, TargetPermissionError, NotPossibleError: As for `record_cpu`.
    """
    from pprofpy.collectors.heap import DEFAULT_SAMPLE_BYTES, HeapOptions, HeapRecorder
    from pprofpy.collectors.heap_family import HeapFamily

    options = HeapOptions(
        engine, _ns(seconds), sample_bytes or DEFAULT_SAMPLE_BYTES, frames, snapshots, collect=collect, types=types
    )
    options.check()
    target, length = _target(pid), _Length.of(seconds, window_seconds)

    def make(running: Running) -> Recording:
        warnings: list[str] = []
        with (HeapFamily if subprocesses else HeapRecorder)(options, warnings.append) as recorder:
            recorder.watch(target)
            return _noted(length.record(running, recorder, target), warnings)

    return _started(make, stop)


def record_trace(
    pid: int | None,
    seconds: float | None = 30,
    events: Sequence[str] = (),
    *,
    path: str = "",
    force: bool = False,
    system_calls: bool = True,
    slower_than_seconds: float = 0,
    stacks: bool = False,
    subprocesses: bool = False,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """System calls and kernel events, each of them, as `pprofpy trace` does.

    Args:
        pid: The process; None for the whole system.
        events: System calls and tracepoints, with wildcards; `!` excludes. Empty for all system calls.
        path: Write the events to this file as they come, for `pprofpy trace --input` and `pprofpy timeline`.
        force: Replace a file that pprofpy did not write.
        system_calls: Also those that `events` matches.
        slower_than_seconds: Only system calls of at least this length.
        stacks: The Python stack with each event. Not for the whole system.
        seconds, subprocesses, window_seconds, stop: As for `record_cpu`.

    Returns:
        The recording. Its profile has counts and times by event, stack and thread. Each window also has the table
        `events`: one row an event, in order. The whole has not: it might not fit into memory.

    Raises:
        UsageError: There is no such event, or the arguments make no sense.
        OutputError: The file cannot be written.
        TargetError, NotPossibleError: As for `record_cpu`.
    """
    from pprofpy.collectors.kernel.program import require
    from pprofpy.collectors.kernel.tracepoints import select
    from pprofpy.collectors.trace import TraceOptions
    from pprofpy.traced import TracedRecorder

    if stacks and pid is None:
        raise UsageError("stacks need a process", "give its pid")
    require()
    chosen, slower_ns = select(events, with_syscalls=system_calls), round(slower_than_seconds * NS_PER_S)

    def begin(scope: Scope) -> Recorder:
        options = TraceOptions(chosen, scope, slower_than_ns=slower_ns, stacks=stacks)
        return TracedRecorder(options, path, force=force)

    return _started_in_kernel(pid, begin, subprocesses, _Length.of(seconds, window_seconds), stop)


@dataclass(frozen=True, slots=True)
class _Length:
    """Of a recording (None: until its target ends) and of its windows, in nanoseconds."""

    duration_ns: int | None
    window_ns: int

    @classmethod
    def of(cls, seconds: float | None, window_seconds: float) -> _Length:
        return cls(_ns(seconds), _ns(window_seconds) or NS_PER_S)

    def record(self, running: Running, recorder: Recorder, target: Target | None) -> Recording:
        return running.record(recorder, target, self.duration_ns, self.window_ns)


def _ns(seconds: float | None) -> int | None:
    """Raises UsageError unless this is a length of time; None stays None."""
    if seconds is None:
        return None
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{seconds} seconds are no length of time", "give more than nothing, or None for no end")
    return round(seconds * NS_PER_S)


def _target(pid: int) -> Target:
    require_proc()
    return open_target(pid)


def _started_in_kernel(
    pid: int | None, begin: Callable[[Scope], Recorder], subprocesses: bool, length: _Length, stop: Stop | None
) -> Recorded:
    """Record with probes, a process or the whole system; `begin` makes the recorder."""
    from pprofpy.collectors.kernel.program import require
    from pprofpy.collectors.kernel.scope import Scope

    require()
    if pid is None and subprocesses:
        raise UsageError("subprocesses are those of a process", "give its pid; without, all are watched")
    target = None if pid is None else _target(pid)

    def make(running: Running) -> Recording:
        with begin(Scope(target.pid if target else 0, children=subprocesses)) as recorder:
            return length.record(running, recorder, target)

    return _started(make, stop)


def _started(make: Callable[[Running], Recording], stop: Stop | None) -> Recorded:
    running = Running(make, stop)
    running.start()
    return Recorded(running)


def _noted(recording: Recording, notes: Sequence[str]) -> Recording:
    """With remarks on how it was made."""
    profile = recording.profile
    collection = replace(profile.collection, notes=(*profile.collection.notes, *notes))
    return replace(recording, profile=replace(profile, collection=collection))
