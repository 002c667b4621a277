"""Time off the CPU: where threads block, for how long, and who wakes them. Counted in the kernel by `bpf/offcpu.bpf.c`.

All times lie within the recording: what began before it counts from its start, what goes on after it up to its end. So
for every thread: running + sleeping + disk + run queue = duration.

Source: the raw tracepoints sched_switch, sched_waking, task_rename, sched_process_fork.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy import __version__
from pprofpy.collectors.bpf import load
from pprofpy.collectors.bpf.processes import Scope, comm_text
from pprofpy.collectors.bpf.scheduler import CONTEXTS, scheduler_constants
from pprofpy.collectors.bpf.symbols import kernel_symbols
from pprofpy.latency import KERNEL_MAPPING
from pprofpy.profile import PYTHON_MAPPING, Collection, Frame, Function, Label, Profile, ProfileBuilder, ValueType

OFF_CPU_TYPES = (ValueType("contentions", "count"), ValueType("delay", "nanoseconds"))
STATES = ("sleeping", "disk", "runqueue")
"""By the number that offcpu.bpf.c gives them."""

_U4 = np.dtype("u4")
_THREAD = np.dtype(
    [
        ("off_ns", "u8"),
        ("wake_ns", "u8"),
        ("user_stack", "u8"),
        ("kernel_stack", "i4"),
        ("tgid", "u4"),
        ("waker_tid", "u4"),
        ("waker_context", "u1"),
        ("state", "u1"),
        ("off", "u1"),
        ("dead", "u1"),
        ("comm", "S16"),
    ]
)
_PLACE = np.dtype(
    [
        ("user_stack", "u8"),
        ("tid", "u4"),
        ("kernel_stack", "i4"),
        ("waker_tid", "u4"),
        ("waker_context", "u1"),
        ("state", "u1"),
        ("unused", "u2"),
    ]
)
_TIMES = np.dtype([("count", "u8"), ("total_ns", "u8"), ("max_ns", "u8")])
_NAME = np.dtype([("tgid", "u4"), ("comm", "S16")])
_STACK = np.dtype([("addresses", "u8", 127)])
_LAYOUTS = {"thread": _THREAD, "place": _PLACE, "times": _TIMES, "name": _NAME}

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_FIRST_SEEDED_STACK = 1 << 24
"""From here on `kernel_stack` numbers the stacks that we read ourselves when the recording began."""

_SLEEPING, _DISK, _RUN_QUEUE = range(len(STATES))
_STILL = "(still waiting)"
_BEFORE_SCHEDULE = re.compile(r"_*(schedule|io_schedule|preempt_schedule|cond_resched)(_|$)|_*traceiter_|bpf_")
"""The leaf frames that every switch has in common; what stands below them tells why."""

_LOST = {
    "LOST_THREAD": "switches of threads that found no room in the kernel's table",
    "LOST_TIME": "times off the CPU that found no room in the kernel's table",
    "LOST_STACK": "kernel stacks that could not be kept",
    "LOST_PROCESS": "child processes that are not followed: too many",
    "HIDDEN_SWITCH": "times off the CPU of which the kernel did not show the end",
}
"""Why something could not be kept, in the order of the enum in offcpu.bpf.c."""


@dataclass(frozen=True, slots=True)
class OffCpuOptions:
    """What to watch.

    Attributes:
        scope: Whose times.
        min_ns, max_ns: Only times off the CPU (blocked and run queue together) within these; 0 for no bound.
    """

    scope: Scope = field(default_factory=Scope)
    min_ns: int = 0
    max_ns: int = 0


@dataclass(slots=True)
class _Spell:
    """Times off the CPU with the same thread, stack, state and waker."""

    count: int = 0
    total_ns: int = 0


_Key = tuple[int, int, str, str, int, int, str]
"""pid, tid, thread name, state, kernel stack, user stack, waker."""


class OffCpuRecorder:
    """A recording that runs from its creation until `stop()`.

    Args:
        options: What to watch.
        user_frames: Spells out the stacks that `walk_user_stack()` in offcpu.bpf.c numbers (leaf-first).

    Raises:
        NotPossibleError: eBPF cannot work here.
        TargetError: There is no such process.
    """

    def __init__(
        self, options: OffCpuOptions, user_frames: Callable[[int], tuple[Frame, ...]] = lambda _: ()
    ) -> None:
        self._options = options
        self._user_frames = user_frames
        options.scope.check()
        self._pid = options.scope.pid
        self._program = load("offcpu.bpf.c", self._constants(), _LAYOUTS)
        self._threads = self._program.table("threads", _U4, _THREAD)
        self._places = self._program.table("places", _PLACE, _TIMES)
        self._names = self._program.table("names", _U4, _NAME)
        self._kernel_stacks = self._program.table("kernel_stacks", _U4, _STACK)
        self._lost = self._program.table("lost", _U4, np.dtype("u8"))
        self._seeded_stacks: list[tuple[str, ...]] = []
        self._spells: defaultdict[_Key, _Spell] = defaultdict(_Spell)
        self._attach()
        if self._pid:
            self.watch(self._pid)

    def watch(self, pid: int) -> None:
        """Name the process to watch, if it was to be named later."""
        self._pid = pid
        for member in self._options.scope.watch(self._program, pid):
            self._seed(member)

    def _constants(self) -> dict[str, int]:
        options = self._options
        constants = {"MAX_THREADS": 65_536 if options.scope.is_everybody else 32_768, "MAX_PLACES": 131_072}
        bounds = {"MIN_NS": options.min_ns, "MAX_NS": options.max_ns}
        constants |= {name: value for name, value in bounds.items() if value}
        return constants | scheduler_constants() | options.scope.constants()

    def _attach(self) -> None:
        if self._options.scope.children:
            self._program.attach_raw("sched_process_fork", "on_fork")
        self._program.attach_raw("task_rename", "on_rename")
        self._program.attach_raw("sched_waking", "on_waking")
        self._program.attach_raw("sched_switch", "on_switch")
        self.start_ns, self.time_ns = time.monotonic_ns(), time.time_ns()

    def _seed(self, pid: int) -> None:
        """Enter the threads that are blocked already: no switch will tell when they began."""
        for task in Path(f"/proc/{pid}/task").glob("*"):
            with contextlib.suppress(OSError, IndexError):
                self._seed_thread(pid, task)

    def _seed_thread(self, pid: int, task: Path) -> None:
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        state, born_ns = fields[0], int(fields[19]) * _TICK_NS - _asleep_ns()
        if state not in "SD":
            return
        self._seeded_stacks.append(tuple(re.findall(r"\] ([\w.]+)\+", (task / "stack").read_text())))
        entry = np.zeros((), _THREAD)
        entry["off_ns"], entry["tgid"], entry["off"] = max(self.start_ns, born_ns), pid, 1
        entry["state"] = _DISK if state == "D" else _SLEEPING
        entry["kernel_stack"] = _FIRST_SEEDED_STACK + len(self._seeded_stacks) - 1
        entry["comm"] = (task / "comm").read_bytes().rstrip(b"\n")
        # Not over an entry of the kernel's: the thread has been awake since, and the kernel knows better.
        self._threads.put_new(int(task.name), entry)

    # -- while it runs ---------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Move the threads that have ended out of the kernel's tables; call it once or twice a second."""
        tids, threads = self._threads.items()
        dead = threads["dead"] == 1
        if not dead.any():
            return
        places, times = self._places.items()
        gone = np.isin(places["tid"], tids[dead])
        self._collect(places[gone], times[gone], self._thread_names(tids, threads))
        self._places.delete(places[gone])
        self._threads.delete(tids[dead])

    # -- at its end ------------------------------------------------------------------------------------------------

    def stop(self) -> Profile:
        """End the recording; everything that it found."""
        self._program.detach()
        end_ns = time.monotonic_ns()
        tids, threads = self._threads.items()
        names = self._thread_names(tids, threads)
        self._collect(*self._places.items(), names)
        self._collect_unfinished(tids, threads, end_ns)
        profile = self._build()
        profile.time_ns, profile.duration_ns = self.time_ns, end_ns - self.start_ns
        profile.period_type, profile.period = OFF_CPU_TYPES[0], 1
        profile.collection = self._collection()
        return profile

    def close(self) -> None:
        """Leave nothing in the kernel."""
        self._program.close()

    def __enter__(self) -> OffCpuRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- reading the kernel's tables ---------------------------------------------------------------------------------

    def _thread_names(self, tids: NDArray[Any], threads: NDArray[Any]) -> dict[int, tuple[int, str]]:
        """tid -> (pid, name), of watched threads and of those who woke them."""
        wakers, names = self._names.items()
        found = {tid: (pid, comm_text(comm)) for tid, (pid, comm) in zip(wakers.tolist(), names.tolist(), strict=True)}
        watched = zip(tids.tolist(), threads["tgid"].tolist(), threads["comm"].tolist(), strict=True)
        return found | {tid: (pid, comm_text(comm)) for tid, pid, comm in watched}

    def _collect(self, places: NDArray[Any], times: NDArray[Any], names: dict[int, tuple[int, str]]) -> None:
        rows = zip(places.tolist(), times["count"].tolist(), times["total_ns"].tolist(), strict=True)
        for (user_stack, tid, kernel_stack, waker_tid, context, state, _), count, total_ns in rows:
            pid, name = names.get(tid, (0, f"thread {tid}"))
            waker = _waker(context, waker_tid, names)
            spell = self._spells[pid, tid, name, STATES[state], kernel_stack, user_stack, waker]
            spell.count += count
            spell.total_ns += total_ns

    def _collect_unfinished(self, tids: NDArray[Any], threads: NDArray[Any], end_ns: int) -> None:
        """Threads that are off the CPU as the recording ends: up to its end."""
        options = self._options
        for tid, thread in zip(tids.tolist(), threads, strict=True):
            off_ns, wake_ns = int(thread["off_ns"]), int(thread["wake_ns"])
            total_ns = end_ns - off_ns
            too_short, too_long = total_ns < options.min_ns, options.max_ns and total_ns > options.max_ns
            if not thread["off"] or not off_ns or total_ns <= 0 or too_short or too_long:
                continue
            woken = wake_ns > off_ns or thread["state"] == _RUN_QUEUE
            blocked_ns = 0 if thread["state"] == _RUN_QUEUE else min(wake_ns, end_ns) - off_ns if woken else total_ns
            who = int(thread["tgid"]), tid, comm_text(thread["comm"])
            stacks = int(thread["kernel_stack"]), int(thread["user_stack"])
            for state, time_ns in ((STATES[thread["state"]], blocked_ns), ("runqueue", total_ns - blocked_ns)):
                if time_ns > 0:
                    spell = self._spells[*who, state, *stacks, _STILL]
                    spell.count += 1
                    spell.total_ns += time_ns

    # -- the profile -----------------------------------------------------------------------------------------------

    def _build(self) -> Profile:
        kernel_stacks = self._kernel_frames()
        builder = ProfileBuilder(OFF_CPU_TYPES, KERNEL_MAPPING)
        for (pid, tid, name, state, kernel_stack, user_stack, waker), spell in self._spells.items():
            frames = kernel_stacks.get(kernel_stack, (Frame(Function("[kernel stack unknown]")),))
            locations = tuple(builder.frame_location(frame) for frame in frames)
            user = tuple(builder.frame_location(frame, PYTHON_MAPPING) for frame in self._user_frames(user_stack))
            labels = [Label("state", state), Label("thread", name), Label("tid", tid), Label("pid", pid)]
            if waker:
                labels.append(Label("waker", waker))
            builder.add_locations(locations + user, (spell.count, spell.total_ns), tuple(labels))
        return builder.build()

    def _kernel_frames(self) -> dict[int, tuple[Frame, ...]]:
        """The kernel stacks in use, by number, leaf-first."""
        wanted = {key[4] for key in self._spells}
        symbols = kernel_symbols()
        stacks = {
            number: tuple(symbols.name(address) for address in self._kernel_stacks.get(number)["addresses"].tolist() if address)
            for number in wanted
            if 0 <= number < _FIRST_SEEDED_STACK
        }
        stacks |= {_FIRST_SEEDED_STACK + number: stack for number, stack in enumerate(self._seeded_stacks)}
        return {number: _telling_frames(stack) for number, stack in stacks.items() if stack}

    def _collection(self) -> Collection:
        _, counts = self._lost.items()
        losses = {reason: int(count) for reason, count in zip(_LOST.values(), counts.sum(axis=1), strict=True)}
        losses["events that the kernel did not hand over"] = self._program.missed()
        return Collection(
            engine=f"pprofpy {__version__}, eBPF at the scheduler's tracepoints",
            target=f"pid {self._pid}" if self._pid else "all processes",
            dropped=sum(losses.values()),
            notes=tuple(f"lost: {count} {reason}" for reason, count in losses.items() if count),
        )


def _asleep_ns() -> int:
    """How long the machine was suspended: /proc counts that, the monotonic clock does not."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()


def _waker(context: int, waker_tid: int, names: dict[int, tuple[int, str]]) -> str:
    """Who ended a wait, in words. An interrupt is named as such, not by the thread that it interrupted."""
    kind = CONTEXTS[context]
    if kind == "irq":
        return "timer/irq"
    if not waker_tid:
        return "" if kind == "task" else kind
    return f"{names.get(waker_tid, (0, 'thread'))[1]} ({waker_tid})" + (" in softirq" if kind == "softirq" else "")


def _telling_frames(names: tuple[str, ...]) -> tuple[Frame, ...]:
    """A kernel stack without the scheduler's own frames at its leaf."""
    first = next((index for index, name in enumerate(names) if not _BEFORE_SCHEDULE.match(name)), 0)
    return tuple(Frame(Function(name)) for name in names[first:])
