"""Off-CPU intervals: where threads block, why, for how long, and who wakes them. `probes/off_cpu.bpf.c` counts them.

All times lie within the recording: what began before it counts from its start, what goes on after it up to its end. So
for every thread: running + sleeping + disk + run queue = duration.

Threads have the stacks that they block with: Python's where there is one, else the kernel's. Those that were blocked
already when the recording began are looked at from outside.

Source: the raw tracepoints sched_switch, sched_waking, task_rename, sched_process_fork.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.thread_names import ThreadNames
from pprofpy.collectors.kernel.ids import OUTSIDE
from pprofpy.collectors.kernel.label_options import TASKS_ONLY, LabelOptions
from pprofpy.collectors.kernel.reasons import REASONS, RUN_QUEUE, reason_constants, write_reason_table
from pprofpy.collectors.kernel.scheduler import CONTEXTS
from pprofpy.collectors.kernel.scope import Scope, comm_text
from pprofpy.collectors.kernel.source import ProbeSource
from pprofpy.collectors.kernel.switches import OFF_CPU, SWITCH_LAYOUTS, TIMES, TRACKED, WAKEUP
from pprofpy.collectors.kernel.windows import TableWindows
from pprofpy.collectors.pystacks.blocked import BlockedThread, blocked_threads
from pprofpy.collectors.pystacks.records import with_python
from pprofpy.collectors.pystacks.walked import WalkedStacks
from pprofpy.collectors.scheduling.off_cpu_sums import OffCpuSums, What
from pprofpy.collectors.scheduling.recorder import SwitchRecorder
from pprofpy.model.profile import Collection, Profile
from pprofpy.model.recording import Recording
from pprofpy.model.waits import STATES, STILL_WAITING
from pprofpy.session.sums import Who
from pprofpy.target import Target

_U4 = np.dtype("u4")
_THREAD = np.dtype(
    [
        ("track", TRACKED),
        ("wakeup", WAKEUP),
        ("stack", "u8"),
        ("kernel_stack", "i4"),
        ("state", "u1"),
        ("reason", "u1"),
        ("is_copied", "u1"),
        ("unused", "u1"),
        ("copy_due_ns", "u8"),
    ]
)
PLACE = np.dtype(
    [
        ("stack", "u8"),
        ("waker_stack", "u8"),
        ("tid", "u4"),
        ("kernel_stack", "i4"),
        ("waker_tid", "u4"),
        ("waker_context", "u1"),
        ("state", "u1"),
        ("reason", "u1"),
        ("window", "u1"),
    ]
)
_LATE_STACK = np.dtype([("off_ns", "u8"), ("stack", "u8"), ("reason", "u8")])
_NAME = np.dtype([("tgid", "u4"), ("comm", "S16")])
_LAYOUTS = SWITCH_LAYOUTS | {"thread": _THREAD, "place": PLACE, "name": _NAME}
SOURCE = ProbeSource("off_cpu.bpf.c", _LAYOUTS)
PYTHON_SOURCE = with_python(SOURCE.plus({"late_stack": _LATE_STACK}), PYTHON=1)

_MOST_KERNEL_STACKS = 8_192

_SLEEPING, _DISK, _RUN_QUEUE = range(len(STATES))
_LOST = (
    "untracked_switches",
    "off_cpu_full",
    "kernel_stacks_full",
    "children_full",
    "hidden_switches",
    "hidden_wake_ups_blocked",
    "native_full",
    "native_skipped",
)
"""Why something could not be kept, in the order of the enum in off_cpu.bpf.c."""


@dataclass(frozen=True, slots=True)
class OffCpuOptions:
    """What to watch.

    Attributes:
        scope: Whose times.
        min_ns, max_ns: Ignore off-CPU intervals (blocked plus run queue) shorter or longer than this; 0: no bound.
        kernel_stacks: What the kernel did on top of Python's stacks; otherwise a frame with the reason stands for it.
        wakers: Put the stack of whoever ended a wait on top of it.
        labels: What else to label waits with.
    """

    scope: Scope = field(default_factory=Scope)
    min_ns: int = 0
    max_ns: int = 0
    kernel_stacks: bool = False
    wakers: bool = False
    labels: LabelOptions = TASKS_ONLY


class OffCpuRecorder(SwitchRecorder):
    """Measures off-CPU intervals. The whole system is measured from `open` on, a process from `watch` on.

    Attributes:
        python_source: The program in the kernel, if Python stacks are walked.
        place: The keys of its sums.

    Raises (`open` and `watch`):
        NotPossibleError: eBPF cannot work here.
        TargetError: There is no such process.
    """

    kind = "off-cpu"
    lost = _LOST
    wakeups: ClassVar = {"sched_waking": "on_waking"}
    python_source = PYTHON_SOURCE
    place = PLACE

    def __init__(self, options: OffCpuOptions) -> None:
        super().__init__(options.scope, walks=not options.scope.is_everybody, labels=options.labels)
        self._options = options
        self._python_names = ThreadNames()
        self._seeded_with: dict[int, Runtime | None] = {}
        self._entered_ns: dict[int, int] = {}

    def open(self) -> None:
        """Load the program and attach it."""
        self._scope.check()
        program = self.load(self.python_source if self._walks else SOURCE, self._values(), self._sizes())
        self._threads = program.table("threads", _U4, _THREAD)
        self._places = program.table("places", self.place if self._walks else PLACE, TIMES)
        self._names = program.table("names", _U4, _NAME)
        self._windows = TableWindows(program)
        write_reason_table(program)
        self.open_stacks()
        options = self._options
        self._sums = OffCpuSums(program, self._python, kernel_stacks=options.kernel_stacks, wakers=options.wakers)
        self._late_stacks = program.table("late_stacks", _U4, _LATE_STACK) if self._walks else None
        members = self.watch_family(self._pid) if self._pid else []
        self.load_functions()
        self.attach()
        self.begin()
        self._seed(members)

    def watch(self, target: Target) -> None:
        """Measure a process, if it was to be named later."""
        if target.pid != self._pid:
            self._seed(self.watch_family(target.pid))

    def enter(self, pid: int) -> None:
        """Measure a process of a control group: one that enters later, from now on."""
        super().enter(pid)
        self._entered_ns[pid] = time.monotonic_ns()
        self._seed_process(pid)

    def leave(self, pid: int) -> None:
        """Measure it no more."""
        super().leave(pid)
        self._entered_ns.pop(pid, None)

    @property
    def without_python(self) -> str:
        """Why there are no Python stacks, in words; empty if there are."""
        return self._python.problem if self._python else "they need a process: --pid, --name or a COMMAND"

    def _values(self) -> dict[str, int]:
        options = self._options
        wanted = {"KERNEL_STACKS": int(options.kernel_stacks), "MIN_NS": options.min_ns, "MAX_NS": options.max_ns}
        wakers = {"WAKER_STACKS": int(options.wakers)} if self._walks else {}
        return self.switch_constants() | reason_constants() | wanted | wakers

    def _sizes(self) -> dict[str, int]:
        return self.switch_sizes() | {"kernel_stacks": _MOST_KERNEL_STACKS}

    def _seed(self, pids: list[int]) -> None:
        """Seed the threads that are blocked already: no switch will report when they began."""
        for pid in pids:
            self._seed_process(pid)

    def _seed_process(self, pid: int) -> None:
        """Seed one process's blocked threads; called again once its interpreter is readable."""
        runtime = self._python.runtime(pid) if self._python else None
        self._seeded_with[pid] = runtime
        off_ns = self._off_since()
        for thread in blocked_threads(pid, runtime, self._options.labels):
            stack = self._python.add(thread.python_stack, thread.labels) if self._python else 0
            # Not over an entry of the kernel's: the thread has been awake since, and the kernel knows better.
            if not self._threads.put_new(thread.tid, self._seeded(pid, thread, stack)) and stack:
                self._add_late_stack(thread, stack, off_ns.get(thread.tid, 0))

    def _seeded(self, pid: int, thread: BlockedThread, stack: int) -> Any:
        """Return an entry for the kernel's table of threads."""
        entry = np.zeros((), _THREAD)
        track = entry["track"]
        since_ns = max(self._entered_ns.get(pid, self.start_ns), thread.born_ns)
        track["since_ns"], track["tgid"], track["where"] = since_ns, pid, OFF_CPU
        track["comm"] = thread.comm
        entry["state"] = _DISK if thread.is_uninterruptible else _SLEEPING
        entry["reason"], entry["stack"] = thread.reason, stack
        entry["kernel_stack"] = self._sums.number_of_seeded(thread.kernel_stack)
        return entry

    def _add_late_stack(self, thread: BlockedThread, stack: int, off_ns: int) -> None:
        """Enter the stack of a thread that was seeded without one and is still in that off-CPU interval."""
        entry = self._threads.get(thread.tid)
        track = entry["track"]
        is_same = track["where"] == OFF_CPU and track["since_ns"] == off_ns
        if self._late_stacks and off_ns and is_same and not entry["stack"]:
            self._late_stacks.put(thread.tid, np.array((off_ns, stack, thread.reason), _LATE_STACK))

    def _off_since(self) -> dict[int, int]:
        """Return tid -> start of its interval, for threads that are off-CPU now."""
        tids, threads = self._threads.items()
        track = threads["track"]
        since_ns = np.where(track["where"] == OFF_CPU, track["since_ns"], 0)
        return dict(zip(tids.tolist(), since_ns.tolist(), strict=True))

    # -- while it runs ---------------------------------------------------------------------------------------------

    def take_new(self) -> None:
        """Read new stacks, and seed processes whose interpreter has become readable."""
        if not self._python:
            return
        for pid in self._poll_stacks(self._python):
            if self._seeded_with.get(pid) is not self._python.runtime(pid):
                self._seed_process(pid)
        ended = self._seeded_with.keys() - self._python.runtimes.keys()
        for pid in ended:
            del self._seeded_with[pid]

    def _poll_stacks(self, python: WalkedStacks) -> list[int]:
        """Read new stacks; return the processes whose interpreter has become readable."""
        return python.poll()

    def drain(self) -> None:
        """Move the finished intervals from the kernel's tables to user space."""
        tids, threads = self._threads.items()
        others = self._names.items()
        done, times, left = self._windows.take(self._places)
        names = self._thread_names(tids, threads, others, done["waker_tid"])
        self.take_new()
        self._collect(done, times, names)
        self._sums.make_room()
        self._windows.end()
        gone = (threads["track"]["is_dead"] == 1) & ~np.isin(tids, left["tid"])
        self._threads.clear(tids[gone])
        self._forget_others(tids, threads, left)
        if self._python:
            self._python.make_room(
                threads["stack"].tolist(),
                threads["wakeup"]["stack"].tolist(),
                left["stack"].tolist(),
                left["waker_stack"].tolist(),
            )

    def _forget_others(self, tids: NDArray[Any], threads: NDArray[Any], left: NDArray[Any]) -> None:
        """Forget what a subclass knows of intervals, but for those that go on or were left in the table."""

    def window(self) -> Recording:
        """Return the intervals that ended since the last window; those of the last moments are in the next one."""
        self.drain()
        return Recording(self.kind, self._take_profile(self.recorded_until_ns()))

    # -- at its end ------------------------------------------------------------------------------------------------

    def finish(self) -> Recording:
        """End the recording and return everything since the last window."""
        end_ns = self.recorded_until_ns()
        self.program.detach()  # takes a while on a busy machine, one function after the other
        if self._python:
            self._poll_stacks(self._python)
        tids, threads = self._threads.items()
        others, (places, times) = self._names.items(), self._places.items()
        wakers = np.concatenate([places["waker_tid"], threads["wakeup"]["tid"]])
        names = self._thread_names(tids, threads, others, wakers)
        self._collect(places, times, names)
        self._collect_unfinished(tids, threads, names, end_ns)
        return Recording(self.kind, self._take_profile(end_ns))

    # -- reading the kernel's tables ---------------------------------------------------------------------------------

    def _thread_names(
        self,
        tids: NDArray[Any],
        threads: NDArray[Any],
        others: tuple[NDArray[Any], NDArray[Any]],
        wakers: NDArray[Any],
    ) -> dict[int, tuple[int, str]]:
        """tid -> (pid, name), of watched threads and of those who woke them: Python's name where there is one.

        Args:
            tids, threads: The watched ones.
            others: Whom the kernel remembers, up to thousands that have ended.
            wakers: The threads that have woken watched ones.
        """
        if self._python:
            who = zip(threads["track"]["tgid"].tolist(), tids.tolist(), strict=True)
            self._python_names.learn_all(self._python.runtimes, who)
        is_wanted = np.isin(others[0], wakers)
        known, names = others[0][is_wanted], others[1][is_wanted]
        found = {}
        track = threads["track"]
        for many, pids, comms in (known, names["tgid"], names["comm"]), (tids, track["tgid"], track["comm"]):
            for tid, pid, comm in zip(many.tolist(), pids.tolist(), comms.tolist(), strict=True):
                found[tid] = pid, self._python_names.name(pid, tid, comm_text(comm))
        return found

    def _collect(self, places: NDArray[Any], times: NDArray[Any], names: dict[int, tuple[int, str]]) -> None:
        rows = zip(places.tolist(), times["count"].tolist(), times["total_ns"].tolist(), strict=True)
        for row, count, total_ns in rows:
            stack, waker_stack, tid, kernel_stack, waker_tid, context, state, reason, _, *copied_ns = row
            pid, name = names.get(tid, (0, f"thread {tid}"))
            waker = _waker(context, waker_tid, names), self._number(waker_stack)
            stacks, whole = (self._number(stack), kernel_stack), self._whole(stack, tid, *copied_ns)
            what = What(STATES[state], REASONS[reason], *stacks, *waker, whole)
            self._sums.add(Who(pid, tid, name), what, (count, total_ns))

    def _number(self, stack_id: int) -> int:
        return self._python.number(stack_id) if self._python else 0

    def _whole(self, stack: int, tid: int, copied_ns: int = 0) -> int:
        """Return `What.whole` of an interval: its Python stack, its thread, when that left its CPU if more is known."""
        return 0

    def _collect_unfinished(
        self, tids: NDArray[Any], threads: NDArray[Any], names: dict[int, tuple[int, str]], end_ns: int
    ) -> None:
        """Add the open intervals of threads that are off-CPU when the recording ends, up to its end."""
        options = self._options
        late = dict(zip(*self._late_stacks.items(), strict=True)) if self._late_stacks else {}
        for tid, thread in zip(tids.tolist(), threads, strict=True):
            off_ns, wake_ns = int(thread["track"]["since_ns"]), int(thread["wakeup"]["at_ns"])
            total_ns = end_ns - off_ns
            too_short, too_long = total_ns < options.min_ns, options.max_ns and total_ns > options.max_ns
            if thread["track"]["where"] != OFF_CPU or total_ns <= 0 or too_short or too_long:
                continue
            woken = wake_ns > off_ns or thread["state"] == _RUN_QUEUE
            blocked_ns = 0 if thread["state"] == _RUN_QUEUE else min(wake_ns, end_ns) - off_ns if woken else total_ns
            who = Who(int(thread["track"]["tgid"]), tid, names[tid][1])
            facts = late[tid] if tid in late and late[tid]["off_ns"] == off_ns and not thread["stack"] else thread
            stacks = self._number(int(facts["stack"])), int(thread["kernel_stack"])
            whole = self._whole(int(facts["stack"]), tid, off_ns if thread["is_copied"] else 0)
            blocked = STATES[thread["state"]], REASONS[int(facts["reason"])], blocked_ns
            for state, reason, time_ns in (blocked, ("runqueue", REASONS[RUN_QUEUE], total_ns - blocked_ns)):
                if time_ns > 0:
                    self._sums.add(who, What(state, reason, *stacks, STILL_WAITING, 0, whole), (1, time_ns))

    def _take_profile(self, end_ns: int) -> Profile:
        """Return what was summed up so far, which the next window does not have any more."""
        profile = self._sums.take()
        _, profile.time_ns, profile.duration_ns = self.begin_window(end_ns)
        profile.collection = self.collected_since()
        return profile

    def collected(self) -> Collection:
        """How complete the recording is."""
        found = super().collected()
        return replace(found, notes=(*found.notes, *self._sums.notes))


def _waker(context: int, waker_tid: int, names: dict[int, tuple[int, str]]) -> str:
    """Who ended a wait, in words. An interrupt is named as such, not by the thread that it interrupted."""
    kind = CONTEXTS[context]
    if kind == "irq":
        return "timer/irq"
    if waker_tid == OUTSIDE:
        return "a thread outside of our pid namespace"
    if not waker_tid:
        return "" if kind == "task" else kind
    return f"{names.get(waker_tid, (0, 'thread'))[1]} ({waker_tid})" + (" in softirq" if kind == "softirq" else "")
