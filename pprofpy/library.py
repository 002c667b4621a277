"""The library: what the recording commands do, for Python programs. `pprofpy` hands these names on when they are used.

Unlike the commands, it keeps the privileges of the program that calls it, prints nothing, and leaves Ctrl-C alone.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pprofpy.errors import NotPossibleError, UsageError
from pprofpy.formats import files
from pprofpy.formats.recording import write
from pprofpy.model.merge import merge_recordings
from pprofpy.model.profile import Stack
from pprofpy.model.recording import Recording
from pprofpy.model.table import Cell
from pprofpy.session import Recorder, Session, Stop
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
]

Column = NDArray[np.generic]

_MOST_WINDOWS_KEPT = 32
_PROCESS = re.compile(r"(.*) \(pid (\d{1,9})\b", re.DOTALL)
"""As `Target` puts a process into words."""


class Recorded(Recording):
    """A recording, with what a program wants to do with it.

    Attributes:
        kind: The command that records the same, as in `off-cpu`.
        profile: The samples, with the time, the length, and how they were collected and what was lost.
        tables: What a profile cannot hold, by name; `tables["waits"].columns` is a dictionary of lists.
    """

    __slots__ = ()

    def columns(self) -> dict[str, Column]:
        """The samples, one row each, for `pandas.DataFrame` or `pyarrow.table`.

        Returns:
            `stack`: the functions, outermost first, with `;` between them; then one column a label (as `thread`,
            `tid`), empty where a sample has no such label; then one of int64 a sample type, named with its unit as
            in `cpu_nanoseconds`.
        """
        profile = self.profile
        stacks = [_folded(profile.stack_frames(index)) for index in range(len(profile.stacks))]
        found: dict[str, Column] = {"stack": np.array(stacks, object)[profile.sample_stacks]}
        for key in dict.fromkeys(label.key for labels in profile.label_sets for label in labels):
            values = [{label.key: label.value for label in labels}.get(key, "") for labels in profile.label_sets]
            found[key] = _typed(values)[profile.sample_labels]
        for place, (kind, unit) in enumerate(profile.sample_types):
            found[f"{kind}_{unit}"] = profile.values[:, place]
        return found

    def table(self, name: str) -> dict[str, Column]:
        """A table's columns, as `columns` gives the samples; stacks are folded in the same way.

        Raises:
            KeyError: There is no table of this name.
        """
        return {key: _typed(values) for key, values in self.tables[name].columns.items()}

    def save(self, path: str | Path = "", *, force: bool = False) -> Path:
        """Write a pprof file that `pprofpy show`, `load` and `go tool pprof` read.

        Args:
            path: Where to; by default a new file in the profile folder, where the commands look.
            force: Replace a file that pprofpy did not write.

        Returns:
            The file.

        Raises:
            OutputError: It could not be written; nothing half-written is left.
        """
        data = write(self)
        if path:
            files.save(data, Path(path), force=force)
            return Path(path)
        process = _PROCESS.match(self.profile.collection.target)
        name, pid = (process[1], int(process[2])) if process else ("", 0)
        return files.save_recording(data, files.name_of(self.kind or "profile", name, pid) + ".pb.gz")


def load(path: str | Path) -> Recorded:
    """Read a recording, or a profile that another program wrote: such has no kind and no tables.

    Raises:
        ProfileFormatError: It cannot be read.
    """
    return _recorded(files.read_recording(str(path)))


OnWindow = Callable[[Recorded], object]
"""Told what each window holds, soon after it has ended."""


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
    engine: str = "auto",
    on_window: OnWindow | None = None,
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
        engine: `auto`, `bpf` or `py-spy`.
        on_window: Given each window as it ends, the last one included. py-spy has only the last one.
        window_seconds: How long a window is.
        stop: Ends it early; a `threading.Event` does.

    Returns:
        All windows as one.

    Raises:
        UsageError: The arguments make no sense.
        TargetError: There is no such process, or it ended too early.
        TargetPermissionError: It may not be recorded.
        NotPossibleError: No engine can do it here.
    """
    from pprofpy.collectors.cpu import CpuEngines
    from pprofpy.collectors.sampling.options import CpuOptions

    options = CpuOptions(
        rate_hz=rate_hz, duration_ns=_ns(seconds), native=native, gil=threads_with_gil, idle=idle,
        subprocesses=subprocesses, kernel_stacks=kernel_stacks,
    )  # fmt: skip
    target, ending = _target(pid), stop or threading.Event()
    with CpuEngines(engine, options, lambda words: None) as engines:
        while True:
            with closing(engines.start(target, ending)) as recorder:
                try:
                    made = _run(recorder, target, seconds, on_window, window_seconds, ending)
                    break
                except NotPossibleError as error:
                    engines.refuse(error)  # which raises it unless another engine is left
    collection = made.profile.collection
    made.profile.collection = replace(collection, notes=(*collection.notes, *engines.notes))
    return made


def record_off_cpu(
    pid: int | None,
    seconds: float | None = 30,
    *,
    min_seconds: float = 0,
    max_seconds: float = 0,
    wakers: bool = False,
    subprocesses: bool = False,
    kernel_stacks: bool = False,
    on_window: OnWindow | None = None,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """Where threads block, why and for how long, as `pprofpy off-cpu` does.

    Args:
        pid: The process; None for the whole system.
        min_seconds, max_seconds: Only times off the CPU within these; 0 for no bound.
        wakers: Put the stack of whoever ended a wait on top of it.
        seconds, subprocesses, kernel_stacks, on_window, window_seconds, stop: As for `record_cpu`.

    Raises:
        UsageError, TargetError, NotPossibleError: As for `record_cpu`.
    """
    from pprofpy.collectors.off_cpu import OffCpuOptions, OffCpuRecorder

    def begin(scope: Scope) -> Recorder:
        bounds = round(min_seconds * NS_PER_S), round(max_seconds * NS_PER_S)
        return OffCpuRecorder(OffCpuOptions(scope, *bounds, kernel_stacks, wakers))

    return _record_in_kernel(pid, begin, subprocesses, seconds, on_window, window_seconds, stop)


def record_gil(
    pid: int,
    seconds: float | None = 30,
    *,
    rate_hz: int | None = None,
    subprocesses: bool = False,
    on_window: OnWindow | None = None,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """Who waits for the interpreter lock, for how long, and who holds it, as `pprofpy gil` does.

    Args:
        rate_hz: Samples per second of who runs with the lock.
        pid, seconds, subprocesses, on_window, window_seconds, stop: As for `record_cpu`.

    Returns:
        Waits in the profile; `tables` has the holders, the threads and the slices of time.

    Raises:
        UsageError, TargetError, NotPossibleError: As for `record_cpu`; it may also have no such lock.
    """
    from pprofpy.collectors.gil import DEFAULT_RATE_HZ, GilOptions, GilRecorder

    def begin(scope: Scope) -> Recorder:
        return GilRecorder(GilOptions(scope, rate_hz or DEFAULT_RATE_HZ))

    return _record_in_kernel(pid, begin, subprocesses, seconds, on_window, window_seconds, stop)


def record_sched_latency(
    pid: int | None,
    seconds: float | None = 30,
    *,
    stacks: bool = False,
    subprocesses: bool = False,
    on_window: OnWindow | None = None,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """How long threads that could run waited for a CPU, as `pprofpy sched-latency` does.

    Args:
        pid: The process; None for the whole system.
        stacks: Also by Python stack: where they waited, and who woke them. Not for the whole system.
        seconds, subprocesses, on_window, window_seconds, stop: As for `record_cpu`.

    Raises:
        UsageError, TargetError, NotPossibleError: As for `record_cpu`.
    """
    from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder

    if stacks and pid is None:
        raise UsageError("stacks need a process", "give its pid")

    def begin(scope: Scope) -> Recorder:
        return SchedRecorder(SchedOptions(scope, stacks=stacks))

    return _record_in_kernel(pid, begin, subprocesses, seconds, on_window, window_seconds, stop)


def record_events(
    pid: int,
    events: Sequence[str],
    seconds: float | None = 30,
    *,
    weight: str = "",
    subprocesses: bool = False,
    on_window: OnWindow | None = None,
    window_seconds: float = 10,
    stop: Stop | None = None,
) -> Recorded:
    """How often kernel events happen, by Python stack, as `pprofpy events` does.

    Args:
        events: Tracepoints, system calls, `page-faults`, `context-switches`; with wildcards.
        weight: Add up this field of a tracepoint, too.
        pid, seconds, subprocesses, on_window, window_seconds, stop: As for `record_cpu`.

    Raises:
        UsageError: There is no such event or field.
        TargetError, NotPossibleError: As for `record_cpu`.
    """
    from pprofpy.collectors.events import EventProfileRecorder, choose

    wanted = choose(events, weight)

    def begin(scope: Scope) -> Recorder:
        return EventProfileRecorder(wanted, scope)

    return _record_in_kernel(pid, begin, subprocesses, seconds, on_window, window_seconds, stop)


def record_heap(
    pid: int,
    seconds: float | None = 30,
    *,
    engine: str = "auto",
    sample_bytes: int | None = None,
    frames: int = 0,
    snapshots: int = 1,
    types: bool = False,
    stop: Stop | None = None,
) -> Recorded:
    """Which code allocates a process's memory, and what of it stays in use, as `pprofpy heap` does.

    Args:
        engine: `auto`, `sampling` or `tracemalloc`.
        sample_bytes: One sample in so many bytes, on average.
        frames: Depth of stacks; 0 for what is usual with the engine.
        snapshots: So many, evenly spaced, to tell what grows.
        types: Also the types with the biggest objects.
        pid, seconds, stop: As for `record_cpu`.

    Raises:
        UsageError, TargetError, TargetPermissionError, NotPossibleError: As for `record_cpu`.
    """
    from pprofpy.collectors.heap import DEFAULT_SAMPLE_BYTES, HeapOptions, HeapRecorder

    options = HeapOptions(engine, _ns(seconds), sample_bytes or DEFAULT_SAMPLE_BYTES, frames, snapshots, types=types)
    options.check()
    target = _target(pid)
    with HeapRecorder(options, lambda words: None, lambda done, count: None) as recorder:
        recorder.watch(target)
        return _run(recorder, target, seconds, None, 10, stop)


def _record_in_kernel(
    pid: int | None,
    begin: Callable[[Scope], Recorder],
    subprocesses: bool,
    seconds: float | None,
    on_window: OnWindow | None,
    window_seconds: float,
    stop: Stop | None,
) -> Recorded:
    """Record with probes, a process or the whole system; `begin` makes the recorder."""
    from pprofpy.collectors.kernel.program import require
    from pprofpy.collectors.kernel.scope import Scope

    require()
    if pid is None and subprocesses:
        raise UsageError("subprocesses are those of a process", "give its pid; without, all are watched")
    target = None if pid is None else _target(pid)
    with begin(Scope(target.pid if target else 0, children=subprocesses)) as recorder:
        return _run(recorder, target, seconds, on_window, window_seconds, stop)


def _target(pid: int) -> Target:
    require_proc()
    return open_target(pid)


def _run(
    recorder: Recorder,
    target: Target | None,
    seconds: float | None,
    on_window: OnWindow | None,
    window_seconds: float,
    stop: Stop | None,
) -> Recorded:
    """Let a session run to its end; all windows as one."""
    window_ns = _ns(window_seconds) or NS_PER_S
    session = Session(
        [recorder], stop or threading.Event(), target=target, duration_ns=_ns(seconds), window_ns=window_ns
    )
    kept: list[Recording] = []
    for window in session.windows():
        if on_window:
            on_window(_recorded(window))
        kept.append(window)
        if len(kept) > _MOST_WINDOWS_KEPT:
            kept = [merge_recordings(kept)]
    return _recorded(merge_recordings(kept))


def _ns(seconds: float | None) -> int | None:
    """Raises UsageError unless this is a length of time; None stays None."""
    if seconds is None:
        return None
    if not 0 < seconds < float("inf"):
        raise UsageError(f"{seconds} seconds are no length of time", "give more than nothing, or None for no end")
    return round(seconds * NS_PER_S)


def _recorded(found: Recording) -> Recorded:
    return Recorded(found.kind, found.profile, found.tables, found.shown)


def _folded(stack: Stack) -> str:
    return ";".join(frame.function.name for frame in reversed(stack))


def _typed(values: Sequence[Cell | str]) -> Column:
    """Numbers as NumPy's, all else as objects: texts, and stacks as texts."""
    if values and all(type(value) in (int, float, bool) for value in values):
        return np.array(values)
    found = np.empty(len(values), object)
    found[:] = [_folded(value) if isinstance(value, tuple) else value for value in values]
    return found
