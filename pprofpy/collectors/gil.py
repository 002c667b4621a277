"""The interpreter lock of a process: who waits for it, who holds it. `probes/gil.bpf.c` observes it in the kernel.

Waiting, and holding while off-CPU, is exact. Holding while running, and so who blocks whom, is sampled.

Source: the raw tracepoint sched_switch and a timer on every CPU; struct _gil_runtime_state in the process's memory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.cpython.lock import lock_note
from pprofpy.collectors.cpython.thread_names import ThreadNames
from pprofpy.collectors.kernel.label_options import TASKS_ONLY, LabelOptions
from pprofpy.collectors.kernel.losses import losses
from pprofpy.collectors.kernel.recorder import KernelRecorder
from pprofpy.collectors.kernel.scheduler import scheduler_constants
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.kernel.source import ProbeSource
from pprofpy.collectors.kernel.switches import TRACKED
from pprofpy.collectors.pystacks.records import python_constants, with_python
from pprofpy.collectors.pystacks.stacks import PythonStacks
from pprofpy.collectors.scheduling.gil_slices import GilSlices
from pprofpy.collectors.scheduling.gil_sums import GIL_SUM_LAYOUTS, GilSums
from pprofpy.collectors.scheduling.gil_threads import (
    GIL_THREAD,
    gil_thread,
    increase_since,
    joined_threads,
    settle,
)
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.model.gil import GilRecord, GilThread
from pprofpy.model.profile import Collection
from pprofpy.model.recording import Recording
from pprofpy.target import Target, open_target, procfs
from pprofpy.text import without_numbers
from pprofpy.units import NS_PER_S

DEFAULT_RATE_HZ = 997
"""A prime, so that no program with a round period keeps step."""

_MUSL = re.compile(r"/(ld-musl|libc\.musl)[^/]*$")
_MOST_THREADS = 16_384
_MOST_NOTES = 3

_U4 = np.dtype("u4")
_WAITER = np.dtype(
    [("since_ns", "u8"), ("back_ns", "u8"), ("gil", "u8"), ("stack", "u8"), ("tid", "u4"), ("tgid", "u4")]
)
_LAYOUTS = GIL_SUM_LAYOUTS | {"tracked": TRACKED, "thread": GIL_THREAD, "waiter": _WAITER}
SOURCE = with_python(ProbeSource("gil.bpf.c", _LAYOUTS))

MANY_ENDED = 5_000
"""Ended threads keep rows of their own up to this number."""

_LOST = ("untracked_switches", "waits_full", "holds_full", "blocks_full", "waiters_full", "hidden_switches")
"""In the order of the enum in gil.bpf.c."""


@dataclass(frozen=True, slots=True)
class GilOptions:
    """What to watch.

    Attributes:
        scope: Whose lock; not everybody's.
        rate_hz: How often those who run are looked at.
        interval_ns: The length of a GilSlice; 0: as fits, and 240 of them at most.
        labels: What else to label stacks with.
    """

    scope: Scope
    rate_hz: int = DEFAULT_RATE_HZ
    interval_ns: int = 0
    labels: LabelOptions = TASKS_ONLY


class GilRecorder(KernelRecorder):
    """Watches the interpreter lock, from the moment that its process is named.

    Raises (`open` and `watch`):
        NotPossibleError: eBPF cannot work here, or the process has no GIL, or none that we know.
        TargetError: There is no such process.
    """

    kind = "gil"

    def __init__(self, options: GilOptions) -> None:
        super().__init__()
        self._scope = options.scope
        self._rate_hz = options.rate_hz
        self._labels = options.labels
        self._slices = GilSlices(options.interval_ns)
        self._target: Target | None = None
        self._names = ThreadNames()
        self._gone: list[GilThread] = []
        self._gone_ns = 0, 0
        self._group_ids: dict[tuple[int, str], int] = {}
        self._threads_before: dict[int, GilThread] = {}

    def open(self) -> None:
        """Load the program and attach it."""
        self._scope.check()
        program = self.load(
            SOURCE,
            scheduler_constants() | python_constants(self._labels) | {"PERIOD_NS": NS_PER_S // self._rate_hz},
            {"threads": _MOST_THREADS} | self._labels.sizes(),
        )
        self._stacks = PythonStacks(program, children=self._scope.children, labels=self._labels, needs_lock=True)
        self.owned.callback(self._stacks.close)
        self._threads = program.table("threads", _U4, GIL_THREAD)
        self._sums = GilSums(program, self._stacks)
        program.attach_raw("sched_switch", "on_switch")
        program.attach_raw("sched_switch", "on_switch_walk")
        program.attach_clock("on_clock", NS_PER_S // self._rate_hz)
        self.begin()
        if self._scope.pid:
            self.watch(open_target(self._scope.pid))

    def watch(self, target: Target) -> None:
        """Watch the lock of a process, and those of its children if they are wanted. The recording begins here."""
        is_first, self._target = self._target is None, target
        _check_libc(target)
        self._stacks.watch(target)
        if is_first:
            self.begin()

    def enter(self, pid: int) -> None:
        """Watch the lock of a process of a control group, if it has one that we can read."""
        try:
            _check_libc(open_target(pid))
        except NotPossibleError as error:
            self._stacks.processes.refuse(pid, error)
            return
        except TargetError:
            pass  # it may become Python
        self._stacks.processes.enter(pid)

    def leave(self, pid: int) -> None:
        """Watch its lock no more; what its threads wait for does not count."""
        self._stacks.processes.leave(pid)
        tids, threads = self._threads.items()
        self._threads.clear(tids[(threads["track"]["tgid"] == pid) & (threads["track"]["is_dead"] == 0)])

    def followed(self) -> set[int]:
        """As a recorder says it."""
        return self._stacks.processes.followed()

    # -- while it runs ---------------------------------------------------------------------------------------------

    def take_new(self) -> None:
        """Take in stacks, and what the lock did meanwhile."""
        self._stacks.poll()
        self._take_slice(self._threads.items()[1])

    def drain(self) -> None:
        """Move finished waits and holds from the kernel's tables to user space."""
        tids, threads = self._threads.items()
        stacks_in_use, busy = self._sums.take()
        self._stacks.make_room(threads["stack"].tolist(), stacks_in_use)
        self._take_slice(threads.copy())
        self._learn_names(tids, threads)
        gone = (threads["track"]["is_dead"] == 1) & ~np.isin(tids, list(busy))
        if gone.any():
            self._move_out(tids[gone], threads[gone])

    def _move_out(self, tids: NDArray[Any], threads: NDArray[Any]) -> None:
        gone = self._named(tids, threads)
        self._gone += gone
        if len(self._gone) > MANY_ENDED:
            self._sum_up_gone()
        held_ns, wait_ns = self._gone_ns
        self._gone_ns = held_ns + sum(one.held_ns for one in gone), wait_ns + sum(one.wait_ns for one in gone)
        self._threads.clear(tids)

    def _sum_up_gone(self) -> None:
        """By name: there are very many."""
        groups: dict[tuple[int, str], list[GilThread]] = {}
        for one in self._gone:
            groups.setdefault((one.pid, without_numbers(one.name)), []).append(one)
        which = {key: self._group_ids.setdefault(key, -1 - len(self._group_ids)) for key in groups}
        self._sums.join({one.tid: which[key] for key, group in groups.items() for one in group})
        self._gone = [joined_threads(which[key], key[1], group) for key, group in groups.items()]

    def _learn_names(self, tids: NDArray[Any], threads: NDArray[Any]) -> None:
        who = zip(threads["track"]["tgid"].tolist(), tids.tolist(), strict=True)
        self._names.learn_all(self._stacks.runtimes, who)

    def _named(self, tids: NDArray[Any], threads: NDArray[Any]) -> list[GilThread]:
        pids = threads["track"]["tgid"].tolist()
        names = (self._names.name(pid, tid) for pid, tid in zip(pids, tids.tolist(), strict=True))
        return [gil_thread(tid, name, one) for tid, name, one in zip(tids.tolist(), names, threads, strict=True)]

    def window(self) -> Recording:
        """What has happened since the last window.

        Waits, holds and blocks by stack are those that have ended, but for those of the last moments; times of threads
        are complete.
        """
        self.drain()
        tids, threads = self._threads.items()
        return self._take_record(tids, threads, self.recorded_until_ns()).to_recording({})

    def memory(self) -> str:
        """Return how much memory the recording uses, as text."""
        return self.program.memory(len(self._stacks))

    def _take_slice(self, threads: NDArray[Any], *, is_last: bool = False) -> None:
        now_ns = self.recorded_until_ns() - self.start_ns
        if is_last or self._slices.is_due(now_ns):
            self._slices.add(now_ns, *self._totals(threads))

    def _totals(self, threads: NDArray[Any]) -> tuple[int, int]:
        """Holding and waiting of all threads up to now, what goes on included."""
        settle(threads, self.recorded_until_ns())
        gone_held_ns, gone_wait_ns = self._gone_ns
        held_ns = int((threads["held_on_ns"] + threads["held_off_ns"]).sum())
        return gone_held_ns + held_ns, gone_wait_ns + int(threads["wait_total_ns"].sum())

    # -- at its end ------------------------------------------------------------------------------------------------

    def finish(self) -> Recording:
        """End the recording and return everything since the last window."""
        self.program.detach()
        end_ns = self.recorded_until_ns()
        self._stacks.poll()
        tids, threads = self._threads.items()
        self._learn_names(tids, threads)
        self._take_slice(threads.copy(), is_last=True)
        self._sums.take_all()
        self._sums.add_unfinished(tids, threads, end_ns)
        return self._take_record(tids, threads, end_ns).to_recording({})

    def _take_record(self, tids: NDArray[Any], threads: NDArray[Any], end_ns: int) -> GilRecord:
        """Return the sums so far and reset them for the next window."""
        settle(threads, end_ns)
        live, waits, span = self._named(tids, threads), self._sums.waits(), self.begin_window(end_ns)
        record = GilRecord(
            threads=tuple(
                increase_since(one, self._threads_before.get(one.tid), waits) for one in (*self._gone, *live)
            ),
            waits=waits,
            holds=self._sums.holds(),
            blocks=self._sums.blocks(),
            slices=self._slices.take(span.start_ns - self.start_ns),
            time_ns=span.time_ns,
            duration_ns=span.duration_ns,
            collection=self.collected_since(),
        )
        self._threads_before = {one.tid: one for one in live}
        self._gone.clear()
        self._sums.clear()
        self._stacks.end_window()
        return record

    def collected(self) -> Collection:
        """How complete the recording is."""
        how = f"eBPF at switches and {self._rate_hz} times a second"
        found = self._stacks.collection(how, self._target, losses(self.program, _LOST))
        notes = [note for runtime in self._stacks.runtimes.values() if (note := lock_note(runtime))]
        return replace(found, notes=(*found.notes, *notes[:_MOST_NOTES]))


def _check_libc(target: Target) -> None:
    """Refuse musl: its waiting threads sleep elsewhere than in the lock, and would not be seen.

    Raises:
        NotPossibleError: The process uses it.
    """
    try:
        mappings = procfs.mappings(target.pid)
    except OSError as error:
        raise TargetError(f"process {target.pid} ended just now") from error
    if any(_MUSL.search(mapping.path) for mapping in mappings):
        raise NotPossibleError(
            f"the interpreter lock of process {target.pid} cannot be watched: its C library is musl, not glibc",
            "'pprofpy cpu --gil' shows who holds it",
        )
