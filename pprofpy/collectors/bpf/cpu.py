"""CPU samples from the kernel: a clock on every CPU, and the Python stack of whatever thread of the target runs there.

Nothing is stopped. A sample stands for CPU time that was really spent: threads that wait, for the interpreter lock, for
a CPU or for anything else, do not run when the clock strikes and are not counted. Samples are summed up in the kernel
(`cpu.bpf.c`) and drained twice a second, so that memory is bounded by how many different stacks there are.

The clock's period is a little off the round number that was asked for. Programs often do things every 10 or 100 ms; a
clock in step with them would always see the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from pprofpy import __version__
from pprofpy.collectors.bpf.loader import PERF_EVENT, load, whole_or_nothing
from pprofpy.collectors.bpf.pystacks import PYTHON_LAYOUTS, PythonStacks, python_constants
from pprofpy.collectors.bpf.symbols import kernel_symbols
from pprofpy.collectors.cpython.threads import ThreadNames
from pprofpy.errors import InterruptedEarly, PprofpyError, TargetError
from pprofpy.latency import KERNEL_MAPPING
from pprofpy.profile import (
    PYTHON_MAPPING,
    Collection,
    Frame,
    Function,
    Label,
    LabelSet,
    Mapping,
    Profile,
    ProfileBuilder,
    ValueType,
)
from pprofpy.target import Target, descendants_of, open_target
from pprofpy.units import NS_PER_S

CPU_TYPES = (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))
NO_PYTHON = Frame(Function("[no Python stack]"))
"""Stands for a thread that ran no Python function, or whose stack could not be had."""

_OFF_BEAT = 1.01
"""So many times as often as asked."""

_POLL_S = 0.05
_DRAIN_NS = NS_PER_S // 2
_MAX_SAMPLES = 65_536

_U4, _U8 = np.dtype("u4"), np.dtype("u8")
SAMPLE = np.dtype([("stack", "u8"), ("tid", "u4"), ("tgid", "u4"), ("kernel_stack", "i4"), ("window", "u4")])
_KERNEL_STACK = np.dtype([("addresses", "u8", 127)])
_LOOKS, _LOST_COUNT, _LOST_KERNEL_STACK, LOST_NATIVE_STACK = range(4)
_CLOSED = 0xFFFFFFFF
"""Instead of a window's number: nothing is counted any more."""


@dataclass(frozen=True, slots=True)
class CpuRecorderOptions:
    """What to sample.

    Attributes:
        rate_hz: How often, about, on every CPU.
        gil: Only threads that hold the interpreter lock.
        children: Also the processes that a watched one starts.
        kernel_stacks: Also what the kernel did for the thread.
    """

    rate_hz: int = 100
    gil: bool = False
    children: bool = False
    kernel_stacks: bool = False

    @property
    def period_ns(self) -> int:
        """The time between two samples."""
        return round(NS_PER_S / self.rate_hz / _OFF_BEAT)


class CpuRecorder:
    """A recording of processes that `watch()` names, from then until `stop()`; `window()` may be called meanwhile.

    Args:
        options: What to sample.

    Attributes:
        types: What the values of a sample are.

    Raises:
        NotPossibleError: eBPF cannot work here.
    """

    types = CPU_TYPES

    @whole_or_nothing
    def __init__(self, options: CpuRecorderOptions) -> None:
        self._options = options
        self._program = load("cpu.bpf.c", self._constants(), self._layouts())
        self.stacks = PythonStacks(self._program, children=options.children)
        self._samples = self._program.table("samples", SAMPLE, _U8)
        self._window = self._program.table("window", _U4, _U4)
        self._tallies = self._program.table("tallies", _U4, _U8)
        self._kernel_stacks = (
            self._program.table("kernel_stacks", _U4, _KERNEL_STACK) if options.kernel_stacks else None
        )
        self._target: Target | None = None
        self._names = ThreadNames()
        self._cpu_ns: dict[int, tuple[int, int]] = {}
        self._window_number = 0
        self._drained_ns = 0
        self._program.load_function("on_clock", PERF_EVENT)

    def _constants(self) -> dict[str, int]:
        switches = {"GIL_ONLY": self._options.gil, "KERNEL_STACKS": self._options.kernel_stacks}
        constants = python_constants() | {"MAX_SAMPLES": _MAX_SAMPLES}
        return constants | {name: 1 for name, is_on in switches.items() if is_on}

    def _layouts(self) -> dict[str, np.dtype[Any]]:
        return PYTHON_LAYOUTS | {"sample": SAMPLE}

    def watch(self, target: Target) -> None:
        """Sample a process from now on.

        Raises:
            NotPossibleError: Its stacks cannot be walked.
            TargetError: It has ended.
        """
        self.stacks.watch(target)
        if self._target is None:
            self._target = target
            self._begin()
        self._note_cpu_time()

    def watch_children(self, target: Target) -> None:
        """Sample what a process has started before, too, if children are wanted and it can be."""
        for pid in descendants_of(target.pid) if self._options.children else ():
            with suppress(PprofpyError):
                self.watch(open_target(pid))

    def _begin(self) -> None:
        self._program.attach_clock("on_clock", self._options.period_ns)
        self._begin_window(time.monotonic_ns())

    def _begin_window(self, start_ns: int) -> None:
        self.time_ns, self._start_ns = time.time_ns(), start_ns
        self._builder = ProfileBuilder(self.types)
        self._builder.mapping(PYTHON_MAPPING)  # first of all: tables are headed by the first mapping's name
        self._locations: dict[tuple[int, ...], tuple[int, ...]] = {}

    # -- while it runs ---------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Take in what is new; call it some 20 times a second.

        Raises:
            NotPossibleError: The stacks are not what is read from outside.
        """
        self.stacks.poll()
        self._note_cpu_time()
        now_ns = time.monotonic_ns()
        if now_ns - self._drained_ns >= _DRAIN_NS:
            self._drained_ns = now_ns
            self._drain()

    def window(self) -> Profile:
        """What was recorded since the last window, up to half a second ago; then a new one begins."""
        self.poll()
        end_ns = time.monotonic_ns()
        profile = self._profile(end_ns)
        self._begin_window(end_ns)
        return profile

    def _drain(self) -> None:
        """Take what was counted before the previous drain: nobody writes to that any more."""
        self._take()
        self._count_into(self._window_number + 1)
        if self.stacks.make_room(self._stacks_in_use()):
            self._locations.clear()

    def _take(self) -> None:
        """All that is not counted into the current window."""
        keys, counts = self._samples.items()
        done = keys["window"] != self._window_number
        self._collect(keys[done], counts[done])
        self._samples.clear(keys[done])

    def _stacks_in_use(self) -> Iterable[int]:
        """Those that the kernel may refer to although it has met them long ago."""
        return ()

    def _count_into(self, window: int) -> None:
        self._window_number = window
        self._window.put(0, window)

    def _note_cpu_time(self) -> None:
        """Of each process that is watched: CPU time when it began to be, and now."""
        for pid in self.stacks.runtimes:
            with suppress(OSError):
                now_ns = time.clock_gettime_ns(_cpu_clock(pid))
                self._cpu_ns[pid] = self._cpu_ns.get(pid, (now_ns, 0))[0], now_ns

    def _collect(self, keys: np.ndarray, counts: np.ndarray) -> None:
        self._learn_names(zip(keys["tgid"].tolist(), keys["tid"].tolist(), strict=True))
        for (stack, tid, pid, kernel_stack, _), count in zip(keys.tolist(), counts.tolist(), strict=True):
            self._count(self._location(stack, kernel_stack), pid, tid, count)

    def _count(self, locations: tuple[int, ...], pid: int, tid: int, looks: int) -> None:
        self._builder.add_locations(locations, (looks, looks * self._options.period_ns), self._labels(pid, tid))

    def _location(self, stack: int, kernel_stack: int) -> tuple[int, ...]:
        place = (stack, kernel_stack)
        if place not in self._locations:
            self._locations[place] = self._locate(stack, kernel_stack)
        return self._locations[place]

    def _locate(self, stack: int, kernel_stack: int) -> tuple[int, ...]:
        return self._interned(self._kernel_frames(kernel_stack), self.stacks.frames(stack))

    def _interned(
        self, kernel: Iterable[str], python: Sequence[Frame], native: Iterable[tuple[Frame, Mapping]] = ()
    ) -> tuple[int, ...]:
        above = [self._builder.frame_location(Frame(Function(name)), KERNEL_MAPPING) for name in kernel]
        between = [self._builder.frame_location(frame, mapping) for frame, mapping in native]
        below = [self._builder.frame_location(frame, PYTHON_MAPPING) for frame in python or (NO_PYTHON,)]
        return (*above, *between, *below)

    def _kernel_frames(self, kernel_stack: int) -> list[str]:
        if kernel_stack < 0 or self._kernel_stacks is None:
            return []
        symbols = kernel_symbols()
        return [symbols.name(one) for one in self._kernel_stacks.get(kernel_stack)["addresses"].tolist() if one]

    def _learn_names(self, threads: Iterable[tuple[int, int]]) -> None:
        """Of these threads: (pid, tid)."""
        self._names.learn_all(self.stacks.runtimes, threads)

    def _labels(self, pid: int, tid: int) -> LabelSet:
        labels = [Label("thread", self._names.name(pid, tid)), Label("tid", tid)]
        return (*labels, Label("pid", pid)) if self._options.children else tuple(labels)

    # -- at its end ------------------------------------------------------------------------------------------------

    def stop(self) -> Profile:
        """End the recording; what was recorded since the last window."""
        self._note_cpu_time()
        self._count_into(_CLOSED)  # takes effect at once; to detach takes a while on a busy machine
        end_ns = time.monotonic_ns()
        self._program.detach()
        self.stacks.poll()
        self._finish(end_ns)
        return self._profile(end_ns)

    def _finish(self, end_ns: int) -> None:
        """Take all that the kernel has counted up to the end."""
        self._take()

    def _profile(self, end_ns: int) -> Profile:
        profile = self._builder.build()
        profile.period_type, profile.period = self.types[1], self._options.period_ns
        profile.time_ns, profile.duration_ns = self.time_ns, end_ns - self._start_ns
        profile.collection = self._collection()
        return profile

    def _collection(self) -> Collection:
        tallies = self._tallies.items()[1].sum(axis=1).tolist()
        cpu_ns = sum(last - first for first, last in self._cpu_ns.values() if last)
        asked, got = round(cpu_ns / self._options.period_ns), tallies[_LOOKS]
        return Collection(
            engine=f"pprofpy {__version__}, eBPF",
            target=str(self._target),
            asked=asked,
            got=got,
            late=max(0, asked - got) if asked - got > 4 * math.sqrt(asked) else 0,
            dropped=tallies[_LOST_COUNT] + self._program.missed(),
            truncated=self.stacks.truncated,
            errors=self.stacks.failed,
            losses=self._losses(tallies),
            notes=tuple(self._notes()),
        )

    def _losses(self, tallies: list[int]) -> dict[str, int]:
        lost = {"samples_full": tallies[_LOST_COUNT], "missed_events": self._program.missed()}
        return {**lost, **self.stacks.losses(), "kernel_stacks_full": tallies[_LOST_KERNEL_STACK]}

    def _notes(self) -> list[str]:
        notes = ["Only threads that held the interpreter lock were counted."] if self._options.gil else []
        if self._target and not self._target.is_alive():
            notes.append("The target ended during the recording.")
        return notes

    def memory(self) -> str:
        """What the recording takes up, in words."""
        return self._program.memory(len(self.stacks))

    def close(self) -> None:
        """Leave nothing in the kernel."""
        self.stacks.close()
        self._program.close()

    def __enter__(self) -> CpuRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def record(
    recorder: CpuRecorder,
    target: Target,
    duration_ns: int | None,
    wait: Callable[[float], bool],
    progress: Callable[[int], None],
    say: Callable[[str], object],
) -> Profile:
    """Record one process until the time is over, it ends, or the user says so.

    Args:
        recorder: Loaded, and watching nobody yet.
        target: The process.
        duration_ns: How long; None for as long as it lives.
        wait: Sleeps for some seconds; True if the recording is to end early.
        progress: Told the nanoseconds recorded so far.
        say: Told that it begins.

    Raises:
        NotPossibleError: Its stacks cannot be walked.
        TargetError: It ended before anything was recorded.
        InterruptedEarly: So did the recording.
    """
    recorder.watch(target)
    recorder.watch_children(target)
    say("engine: eBPF, which does not stop the process")
    start_ns, interrupted = time.monotonic_ns(), False
    while target.is_alive() and not interrupted:
        elapsed_ns = time.monotonic_ns() - start_ns
        left_s = _POLL_S if duration_ns is None else (duration_ns - elapsed_ns) / NS_PER_S
        if left_s <= 0:
            break
        progress(elapsed_ns)
        interrupted = wait(min(left_s, _POLL_S))
        recorder.poll()
    profile = recorder.stop()
    if not len(profile) and interrupted:
        raise InterruptedEarly("interrupted before anything was recorded")
    if not len(profile) and not target.is_alive():
        raise TargetError(
            f"process {target.pid} ended before anything was recorded",
            "'pprofpy cpu -- COMMAND' records from the start",
        )
    return profile


def _cpu_clock(pid: int) -> int:
    """The clock of all CPU time of a process, threads that have ended included. Source: man 3 clock_getcpuclockid."""
    return (~pid << 3) | 2
