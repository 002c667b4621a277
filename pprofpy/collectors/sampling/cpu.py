"""CPU samples from the kernel: a clock on every CPU, and the Python stack of whatever thread of the target runs there.

Nothing is stopped. A sample stands for CPU time that was really spent: threads that wait, for the interpreter lock, for
a CPU or for anything else, do not run at the timer tick and are not counted. Samples are summed up in the kernel
(`cpu.bpf.c`) and drained twice a second, so that memory is bounded by how many different stacks there are.

The clock's period is a little off the round number that was asked for. Programs often do things every 10 or 100 ms; a
clock in step with them would always see the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from pprofpy import __version__
from pprofpy.collectors.cpython.thread_names import ThreadNames
from pprofpy.collectors.kernel.kallsyms import kernel_symbols
from pprofpy.collectors.kernel.label_options import TASKS_ONLY, LabelOptions
from pprofpy.collectors.kernel.losses import losses
from pprofpy.collectors.kernel.program import PERF_EVENT
from pprofpy.collectors.kernel.recorder import KernelRecorder
from pprofpy.collectors.kernel.source import ProbeSource
from pprofpy.collectors.pystacks.records import python_constants, with_python
from pprofpy.collectors.pystacks.stacks import PythonStacks
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import (
    KERNEL_MAPPING,
    PYTHON_MAPPING,
    Collection,
    Frame,
    Function,
    Label,
    LabelSet,
    Mapping,
    Profile,
    ValueType,
)
from pprofpy.model.recording import Recording
from pprofpy.target import Target
from pprofpy.units import NS_PER_S

CPU_TYPES = (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))
NO_PYTHON = Frame(Function("[no Python stack]"))
"""Stands for a thread that ran no Python function, or whose stack could not be had."""

_RATE_FACTOR = 1.01
"""So many times as often as asked."""

_U4, _U8 = np.dtype("u4"), np.dtype("u8")
SAMPLE = np.dtype([("stack", "u8"), ("tid", "u4"), ("tgid", "u4"), ("kernel_stack", "i4"), ("window", "u4")])
_KERNEL_STACK = np.dtype([("addresses", "u8", 127)])
_LOST = (
    "samples_full",
    "kernel_stacks_full",
    "native_full",
    "untracked_switches",
    "off_cpu_full",
    "hidden_switches",
    "native_skipped",
)
"""Why something could not be kept, in the order of the enum in cpu.bpf.c."""

_WITHOUT_STACK = ("kernel_stacks_full", "native_full", "native_skipped")
"""What is counted all the same."""

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
        labels: What else to label samples with.
    """

    rate_hz: int = 100
    gil: bool = False
    children: bool = False
    kernel_stacks: bool = False
    labels: LabelOptions = TASKS_ONLY

    @property
    def period_ns(self) -> int:
        """The time between two samples."""
        return round(NS_PER_S / self.rate_hz / _RATE_FACTOR)


class CpuRecorder(KernelRecorder):
    """Samples the processes that `watch` names.

    Args:
        options: What to sample.

    Attributes:
        source: The program in the kernel.
        types: What the values of a sample are.

    Raises (`open` and `watch`):
        NotPossibleError: eBPF cannot work here, or the process's stacks cannot be walked.
        TargetError: The process has ended.
    """

    kind = "cpu"
    source = with_python(ProbeSource("cpu.bpf.c", {"sample": SAMPLE}))
    types = CPU_TYPES

    def __init__(self, options: CpuRecorderOptions) -> None:
        super().__init__()
        self._options = options
        self._targets: list[Target] = []
        self._names = ThreadNames()
        self._cpu_ns: dict[int, tuple[int, int]] = {}
        self._ended_cpu_ns = self._noted_ns = 0
        self._window_number = 0

    def open(self) -> None:
        """Load the program; it is attached when the first process is watched."""
        program = self.load(self.source, self._values(), self._sizes())
        options = self._options
        self.stacks = PythonStacks(program, children=options.children, labels=options.labels, needs_lock=options.gil)
        self.owned.callback(self.stacks.close)
        self._samples = program.table("samples", SAMPLE, _U8)
        self._window = program.table("window", _U4, _U4)
        self._sample_count = program.table("sample_count", _U4, _U8)
        wanted = self._options.kernel_stacks
        self._kernel_stacks = program.table("kernel_stacks", _U4, _KERNEL_STACK) if wanted else None
        program.load_function("on_clock", PERF_EVENT)

    def _values(self) -> dict[str, int]:
        options = self._options
        wanted = {"GIL_ONLY": int(options.gil), "KERNEL_STACKS": int(options.kernel_stacks)}
        return python_constants(options.labels) | wanted

    def _sizes(self) -> dict[str, int]:
        return self._options.labels.sizes() | ({} if self._options.kernel_stacks else {"kernel_stacks": 0})

    def watch(self, target: Target) -> None:
        """Sample a process from now on, and what it has started before if children are wanted."""
        self.stacks.watch(target)
        self._targets.append(target)
        if len(self._targets) == 1:
            self._begin()
        self._note_cpu_time()

    def enter(self, pid: int) -> None:
        """Sample a process of a control group from now on."""
        self.stacks.processes.enter(pid)
        if not self.start_ns:
            self._begin()
        self._note_cpu_time()

    def leave(self, pid: int) -> None:
        """Sample it no more."""
        self.stacks.processes.leave(pid)
        self._note_cpu_time()

    def followed(self) -> set[int]:
        """As a recorder says it."""
        return self.stacks.processes.followed()

    def _begin(self) -> None:
        self.program.attach_clock("on_clock", self._options.period_ns)
        self.begin()
        self._new_builder()

    def _new_builder(self) -> None:
        self._builder = ProfileBuilder(self.types)
        self._builder.mapping(PYTHON_MAPPING)  # first of all: tables are headed by the first mapping's name
        self._locations: dict[tuple[int, ...], tuple[int, ...]] = {}

    # -- while it runs ---------------------------------------------------------------------------------------------

    def take_new(self) -> None:
        """Take in new stacks.

        Raises:
            NotPossibleError: The stacks are not what is read from outside.
        """
        self.stacks.poll()
        self._note_cpu_time()

    def window(self) -> Recording:
        """What was recorded since the last window, up to half a second ago; then a new one begins."""
        self.poll()
        end_ns = self.recorded_until_ns()
        profile = self._profile(end_ns)
        self._new_builder()
        return Recording(self.kind, profile)

    def drain(self) -> None:
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
        """Of each process that is watched: CPU time when it began to be, and now, or when the recording ended."""
        runtimes, before_ns, now_ns = self.stacks.runtimes, self._noted_ns, time.monotonic_ns()
        self._noted_ns = min(now_ns, self.end_ns)
        share = (self._noted_ns - before_ns) / max(now_ns - before_ns, 1)
        for pid in runtimes:
            with suppress(OSError):
                cpu_ns = time.clock_gettime_ns(_cpu_clock(pid))
                first_ns, last_ns = self._cpu_ns.get(pid, (cpu_ns, cpu_ns))
                self._cpu_ns[pid] = first_ns, last_ns + round((cpu_ns - last_ns) * share)
        for pid in self._cpu_ns.keys() - runtimes.keys():
            first_ns, last_ns = self._cpu_ns.pop(pid)
            self._ended_cpu_ns += max(last_ns - first_ns, 0)

    def _collect(self, keys: np.ndarray, counts: np.ndarray) -> None:
        self._learn_names(zip(keys["tgid"].tolist(), keys["tid"].tolist(), strict=True))
        for (stack, tid, pid, kernel_stack, _), count in zip(keys.tolist(), counts.tolist(), strict=True):
            labels = self.stacks.labels(stack)
            self._count(self._location(stack, kernel_stack), labels, pid, tid, count)

    def _count(self, locations: tuple[int, ...], labels: LabelSet, pid: int, tid: int, count: int) -> None:
        values = count, count * self._options.period_ns
        self._builder.add_locations(locations, values, (*self._labels(pid, tid), *labels))

    def _location(self, stack: int, kernel_stack: int) -> tuple[int, ...]:
        place = (stack, kernel_stack)
        if place not in self._locations:
            self._locations[place] = self._locate(stack, kernel_stack)
        return self._locations[place]

    def _locate(self, stack: int, kernel_stack: int) -> tuple[int, ...]:
        return self._interned(*self._frames_of(stack, kernel_stack))

    def _frames_of(self, stack: int, kernel_stack: int) -> tuple[Sequence[str], Sequence[Frame]]:
        """Return the kernel's frames and Python's, leaf-first."""
        return self._kernel_frames(kernel_stack), self.stacks.frames(stack)

    def _interned(self, kernel: Iterable[str], python: Sequence[Frame]) -> tuple[int, ...]:
        return self._placed(kernel, [(frame, PYTHON_MAPPING) for frame in python or (NO_PYTHON,)])

    def _placed(self, kernel: Iterable[str], below: Iterable[tuple[Frame, Mapping]]) -> tuple[int, ...]:
        """Intern the kernel's functions and what lies below them; all leaf-first."""
        above = [self._builder.frame_location(Frame(Function(name)), KERNEL_MAPPING) for name in kernel]
        return (*above, *(self._builder.frame_location(frame, mapping) for frame, mapping in below))

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

    def finish(self) -> Recording:
        """End the recording; what was recorded since the last window."""
        self._note_cpu_time()
        self._count_into(_CLOSED)  # takes effect at once; to detach takes a while on a busy machine
        end_ns = self.recorded_until_ns()
        self.program.detach()
        self.stacks.poll()
        self._take_rest(end_ns)
        return Recording(self.kind, self._profile(end_ns))

    def _take_rest(self, end_ns: int) -> None:
        """Take all that the kernel has counted up to the end."""
        self._take()

    def _profile(self, end_ns: int) -> Profile:
        profile = self._builder.build()
        profile.period_type, profile.period = self.types[1], self._options.period_ns
        _, profile.time_ns, profile.duration_ns = self.begin_window(end_ns)
        profile.collection = self.collected_since()
        return profile

    def collected(self) -> Collection:
        """How complete the recording is. How far it is behind is told window by window."""
        lost = losses(self.program, _LOST)
        cpu_ns = self._ended_cpu_ns + sum(last - first for first, last in self._cpu_ns.values() if last)
        return Collection(
            engine=f"pprofpy {__version__}, eBPF",
            target=str(self._targets[0]) if self._targets else "",
            asked=round(cpu_ns / self._options.period_ns),
            got=int(self._sample_count.items()[1].sum()),
            dropped=sum(count for name, count in lost.items() if name not in _WITHOUT_STACK),
            truncated=self.stacks.truncated,
            errors=self.stacks.failed,
            losses=lost | self.stacks.losses() | self._native_losses(),
            notes=tuple(self._notes()),
            basis=("Only threads that held the interpreter lock were counted.",) if self._options.gil else (),
        )

    def collected_since(self) -> Collection:
        """Of this window alone; it is late if it has fewer samples than can be chance."""
        found = super().collected_since()
        lacking = found.asked - found.got
        return replace(found, late=lacking if lacking > 4 * math.sqrt(max(found.asked, 0)) else 0)

    def _native_losses(self) -> dict[str, int]:
        return {}

    def _notes(self) -> list[str]:
        notes = []
        ended = sum(not target.is_alive() for target in self._targets)
        if ended:
            several = f"{ended} of {len(self._targets)} processes" if len(self._targets) > 1 else "The target"
            notes.append(f"{several} ended during the recording.")
        notes += self.stacks.notes()
        return notes if self._kernel_stacks is None else [*notes, *kernel_symbols().notes]

    def memory(self) -> str:
        """What the recording takes up, in words."""
        return self.program.memory(len(self.stacks))


def _cpu_clock(pid: int) -> int:
    """The clock of all CPU time of a process, threads that have ended included. Source: man 3 clock_getcpuclockid."""
    return (~pid << 3) | 2
