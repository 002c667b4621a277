"""Wall-clock time: where threads run, and where they wait.

A thread's time on the CPU is sampled, as `cpu.py` does it. Its times off the CPU are measured, each from switch to
switch (`intervals.py`). So its time on the CPU is known, too. That is divided among the places where it was sampled:
so the times of each thread add up to the length of the recording, or of its life within.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pprofpy.collectors.kernel.kallsyms import without_scheduler
from pprofpy.collectors.kernel.scheduler import scheduler_constants
from pprofpy.collectors.sampling.cpu import CpuRecorder, CpuRecorderOptions
from pprofpy.collectors.sampling.intervals import (
    INTERVAL_LAYOUTS,
    RUNS,
    UNKNOWN,
    Interval,
    Intervals,
    Place,
)
from pprofpy.model.profile import Collection, Frame, Function, Label, LabelSet, Profile, ValueType
from pprofpy.model.recording import Recording
from pprofpy.model.waits import OFF_CPU
from pprofpy.target import Target

WALL_TYPES = (ValueType("samples", "count"), ValueType("wall", "nanoseconds"))
BETWEEN_SAMPLES = Frame(Function("[on the CPU between two samples]"))
"""Stands for a thread that ran so little that no sample met it."""

_HIDDEN = Frame(Function("[unknown: the kernel did not show a switch]"))

_Sampled = tuple[tuple[int, ...], LabelSet]
"""Where a running thread was sampled: locations, and what it is labelled with besides its thread."""


class WallRecorder(CpuRecorder):
    """A recording as CpuRecorder makes it, of all time. A sample is one of a running thread, or a whole wait."""

    source = CpuRecorder.source.plus(INTERVAL_LAYOUTS, IDLE=1, PYTHON=1)
    types = WALL_TYPES

    def __init__(self, options: CpuRecorderOptions) -> None:
        super().__init__(options)
        self._samples_of: defaultdict[tuple[int, int], Counter[_Sampled]] = defaultdict(Counter)
        self._running_ns: Counter[tuple[int, int]] = Counter()

    def open(self) -> None:
        """As CpuRecorder does."""
        super().open()
        self._intervals = Intervals(self.program, self._options.labels)

    def _values(self) -> dict[str, int]:
        return super()._values() | scheduler_constants()

    def _begin(self) -> None:
        """All threads have been read before the recording begins; what was before does not count."""
        self._intervals.attach()
        self._intervals.seed_blocked_threads(self.stacks.processes)
        super()._begin()
        begin_ns = self._end_window()
        self.time_ns += begin_ns - self.start_ns
        self.start_ns = self.window_start_ns = begin_ns
        self._intervals.take(self._window_number)

    def watch(self, target: Target) -> None:
        """As CpuRecorder does."""
        super().watch(target)
        self._intervals.seed_blocked_threads(self.stacks.processes)

    def enter(self, pid: int) -> None:
        """As CpuRecorder does."""
        super().enter(pid)
        self._intervals.seed_blocked_threads(self.stacks.processes)

    def leave(self, pid: int) -> None:
        """As CpuRecorder does."""
        super().leave(pid)
        self._intervals.forget(pid)

    # -- while it runs ---------------------------------------------------------------------------------------------

    def take_new(self) -> None:
        """As CpuRecorder does."""
        super().take_new()
        self._intervals.seed_blocked_threads(self.stacks.processes)

    def window(self) -> Recording:
        """As CpuRecorder does, up to now."""
        self.poll()
        end_ns = self._end_window()
        unfinished = self._intervals.take_unfinished(self.window_start_ns)
        self.take_new()  # the stacks of these, too
        self.drain()
        self._add(unfinished)
        profile = self._profile(end_ns)
        self._new_builder()
        return Recording(self.kind, profile)

    def _end_window(self) -> int:
        """Count into the next window from now on; return when this one has ended."""
        end_ns = self._intervals.begin_window()
        self._count_into(self._window_number + 1)
        return end_ns

    def _new_builder(self) -> None:
        super()._new_builder()
        self._samples_of.clear()
        self._running_ns.clear()

    def _take(self) -> None:
        super()._take()
        self._add(self._intervals.take(self._window_number))

    def _add(self, found: list[Interval]) -> None:
        self._learn_names((one.place.pid, one.place.tid) for one in found)
        for place, count, total_ns in found:
            if place.stack == RUNS:
                self._running_ns[place.pid, place.tid] += total_ns
            else:
                self._builder.add_locations(
                    self._interval_location(place), (count, total_ns), self._labels_of_wait(place)
                )

    def _labels_of_wait(self, place: Place) -> LabelSet:
        labels = self._labels(place.pid, place.tid)
        if place.stack == UNKNOWN:
            return labels
        seed = self._intervals.seed_of(place.stack)
        own = seed.labels if seed else self.stacks.labels(place.stack)
        return (*labels, Label("state", OFF_CPU), *own)

    def _interval_location(self, place: Place) -> tuple[int, ...]:
        return self._location(place.stack, place.kernel_stack)

    def _count(self, locations: tuple[int, ...], labels: LabelSet, pid: int, tid: int, count: int) -> None:
        self._samples_of[pid, tid][locations, labels] += count

    def _frames_of(self, stack: int, kernel_stack: int) -> tuple[Sequence[str], Sequence[Frame]]:
        """As CpuRecorder does."""
        if seed := self._intervals.seed_of(stack):
            kernel = seed.kernel_stack if self._options.kernel_stacks else ()
            return without_scheduler(kernel), seed.python_stack
        frames = (_HIDDEN,) if stack == UNKNOWN else self.stacks.frames(stack)
        return without_scheduler(self._kernel_frames(kernel_stack)), frames

    def _stacks_in_use(self) -> Iterable[int]:
        """The stacks that threads wait with, however long."""
        return self._intervals.stacks_in_use()

    # -- at its end ------------------------------------------------------------------------------------------------

    def _take_rest(self, end_ns: int) -> None:
        unfinished = self._intervals.unfinished(self.window_start_ns, end_ns)
        super()._take_rest(end_ns)
        self._add(unfinished)

    def _profile(self, end_ns: int) -> Profile:
        for thread, running_ns in self._running_ns.items():
            self._divide(thread, running_ns)
        return super()._profile(end_ns)

    def _divide(self, thread: tuple[int, int], running_ns: int) -> None:
        """A thread's time on the CPU among the places where samples have met it."""
        samples, labels = self._samples_of[thread], self._labels(*thread)
        if not samples:
            self._builder.add_locations(self._interned((), (BETWEEN_SAMPLES,)), (0, running_ns), labels)
        seen, given_ns = 0, 0
        for (locations, own), count in samples.items():
            seen += count
            upto_ns = running_ns * seen // samples.total()
            self._builder.add_locations(locations, (count, upto_ns - given_ns), (*labels, *own))
            given_ns = upto_ns

    def collected(self) -> Collection:
        """As CpuRecorder does."""
        found = super().collected()
        return replace(
            found,
            basis=("Waiting threads were counted, too: this is wall-clock time.", *found.basis),
        )
