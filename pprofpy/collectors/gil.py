"""The interpreter lock of a process: who waits for it, who holds it. `probes/gil.bpf.c` observes it in the kernel.

Waiting, and holding while off-CPU, is exact. Holding while running, and so who blocks whom, is sampled.

Source: the raw tracepoint sched_switch and a timer on every CPU; struct _gil_runtime_state in the process's memory.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.cpython.threads import ThreadNames
from pprofpy.collectors.kernel.losses import losses
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.recorder import KernelRecorder
from pprofpy.collectors.kernel.scheduler import scheduler_constants
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.kernel.switches import TIMES, TRACKED
from pprofpy.collectors.kernel.turns import Turns
from pprofpy.collectors.pystacks.records import PYTHON_LAYOUTS, python_constants
from pprofpy.collectors.pystacks.stacks import PythonStacks
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.model.gil import MOST_SLICES, Block, GilRecord, GilThread, Hold, Slice, Wait, joined_slices
from pprofpy.model.profile import Collection
from pprofpy.model.recording import Recording
from pprofpy.session.sums import numberless
from pprofpy.target import Target, open_target, procfs
from pprofpy.units import NS_PER_S

DEFAULT_RATE_HZ = 997
"""A prime, so that no program with a round period keeps step."""

_MUSL = re.compile(r"/(ld-musl|libc\.musl)[^/]*$")
_MOST_WAITERS, _MOST_THREADS = 256, 16_384
_FIRST_SLICE_NS = NS_PER_S // 20

_U4, _U8 = np.dtype("u4"), np.dtype("u8")
_THREAD = np.dtype(
    [
        ("track", TRACKED),
        ("since_ns", "u8"),
        ("back_ns", "u8"),
        ("switches", "u8"),
        ("hold_ns", "u8"),
        ("handover_ns", "u8"),
        ("gil", "u8"),
        ("stack", "u8"),
        ("wait_count", "u8"),
        ("wait_total_ns", "u8"),
        ("wait_max_ns", "u8"),
        ("handover_total_ns", "u8"),
        ("held_off_ns", "u8"),
        ("held_on_ns", "u8"),
        ("on_cpu_ns", "u8"),
        ("thread_state", "u8"),
        ("place", "u4"),
        ("goes", "u4"),
    ]
)
_WAITER = np.dtype(
    [("since_ns", "u8"), ("back_ns", "u8"), ("gil", "u8"), ("stack", "u8"), ("tid", "u4"), ("tgid", "u4")]
)
_AT = np.dtype([("stack", "u8"), ("tid", "u4"), ("turn", "u4")])
_HELD = np.dtype([("on_ns", "u8"), ("off_ns", "u8")])
_BLOCKED = np.dtype(
    [
        ("holder_stack", "u8"),
        ("waiter_stack", "u8"),
        ("holder", "u4"),
        ("waiter", "u4"),
        ("turn", "u4"),
        ("unused", "u4"),
    ]
)
_LAYOUTS = {
    "tracked": TRACKED,
    "thread": _THREAD,
    "waiter": _WAITER,
    "at": _AT,
    "times": TIMES,
    "held": _HELD,
    "blocked": _BLOCKED,
}

MANY_ENDED = 5_000
"""Ended threads keep rows of their own up to this number."""

_SUMS = ("wait_count", "wait_ns", "held_on_ns", "held_off_ns", "cpu_ns", "handover_ns")
"""The times and counts of a GilThread."""

_LOST = ("threads_full", "waits_full", "holds_full", "blocks_full", "waiters_full", "hidden_switches")
"""In the order of the enum in gil.bpf.c."""


@dataclass(frozen=True, slots=True)
class GilOptions:
    """What to watch.

    Attributes:
        scope: Whose lock; not everybody's.
        rate_hz: How often those who run are looked at.
        interval_ns: The length of a Slice; 0: as fits, and 240 of them at most.
    """

    scope: Scope
    rate_hz: int = DEFAULT_RATE_HZ
    interval_ns: int = 0


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
        self._slices = _Slices(options.interval_ns)
        self._target: Target | None = None
        self._names = ThreadNames()
        self._gone: list[GilThread] = []
        self._gone_ns = 0, 0
        self._group_ids: dict[tuple[int, str], int] = {}
        self._told: dict[int, GilThread] = {}

    def open(self) -> None:
        """Load the program and attach it."""
        self._scope.check()
        program = self.load(
            "gil.bpf.c",
            scheduler_constants() | python_constants() | {"MAX_WAITERS": _MOST_WAITERS, "MAX_THREADS": _MOST_THREADS},
            _LAYOUTS | PYTHON_LAYOUTS,
            {"PERIOD_NS": NS_PER_S // self._rate_hz},
        )
        self._stacks = PythonStacks(program, children=self._scope.children)
        self.owned.callback(self._stacks.close)
        self._threads = program.table("threads", _U4, _THREAD)
        self._sums = _Sums(program, self._stacks)
        program.attach_raw("sched_switch", "on_switch")
        program.attach_raw("sched_switch", "on_switch_walk")
        program.attach_clock("on_clock", NS_PER_S // self._rate_hz)
        self.begin()
        if self._scope.pid:
            self.watch(open_target(self._scope.pid))

    def watch(self, target: Target) -> None:
        """Watch the lock of a process, and those of its children if they are wanted. The recording begins here."""
        self._target = target
        _check_libc(target)
        _watch(self._stacks, target)
        self.begin()

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
            groups.setdefault((one.pid, numberless(one.name)), []).append(one)
        which = {key: self._group_ids.setdefault(key, -1 - len(self._group_ids)) for key in groups}
        self._sums.join({one.tid: which[key] for key, group in groups.items() for one in group})
        self._gone = [_joined_threads(which[key], key[1], group) for key, group in groups.items()]

    def _learn_names(self, tids: NDArray[Any], threads: NDArray[Any]) -> None:
        who = zip(threads["track"]["tgid"].tolist(), tids.tolist(), strict=True)
        self._names.learn_all(self._stacks.runtimes, who)

    def _named(self, tids: NDArray[Any], threads: NDArray[Any]) -> list[GilThread]:
        pids = threads["track"]["tgid"].tolist()
        names = (self._names.name(pid, tid) for pid, tid in zip(pids, tids.tolist(), strict=True))
        return [_thread(tid, name, one) for tid, name, one in zip(tids.tolist(), names, threads, strict=True)]

    def window(self) -> Recording:
        """What has happened since the last window.

        Waits, holds and blocks by stack are those that have ended, but for those of the last moments; times of threads
        are complete.
        """
        self.drain()
        tids, threads = self._threads.items()
        return self._take_record(tids, threads, time.monotonic_ns()).to_recording({})

    def memory(self) -> str:
        """Return how much memory the recording uses, as text."""
        return self.program.memory(len(self._stacks))

    def _take_slice(self, threads: NDArray[Any], *, is_last: bool = False) -> None:
        now_ns = time.monotonic_ns() - self.start_ns
        if is_last or self._slices.is_due(now_ns):
            self._slices.add(now_ns, *self._totals(threads))

    def _totals(self, threads: NDArray[Any]) -> tuple[int, int]:
        """Holding and waiting of all threads up to now, what goes on included."""
        _settle(threads, time.monotonic_ns())
        gone_held_ns, gone_wait_ns = self._gone_ns
        held_ns = int((threads["held_on_ns"] + threads["held_off_ns"]).sum())
        return gone_held_ns + held_ns, gone_wait_ns + int(threads["wait_total_ns"].sum())

    # -- at its end ------------------------------------------------------------------------------------------------

    def finish(self) -> Recording:
        """End the recording and return everything since the last window."""
        self.program.detach()
        end_ns = time.monotonic_ns()
        self._stacks.poll()
        tids, threads = self._threads.items()
        self._learn_names(tids, threads)
        self._take_slice(threads.copy(), is_last=True)
        self._sums.take_all()
        self._sums.add_unfinished(tids, threads, end_ns)
        return self._take_record(tids, threads, end_ns).to_recording({})

    def _take_record(self, tids: NDArray[Any], threads: NDArray[Any], end_ns: int) -> GilRecord:
        """Return the sums so far and reset them for the next window."""
        _settle(threads, end_ns)
        live, waits, span = self._named(tids, threads), self._sums.waits(), self.begin_window(end_ns)
        record = GilRecord(
            threads=tuple(_since(one, self._told.get(one.tid), waits) for one in (*self._gone, *live)),
            waits=waits,
            holds=self._sums.holds(),
            blocks=self._sums.blocks(),
            slices=self._slices.take(span.start_ns - self.start_ns),
            time_ns=span.time_ns,
            duration_ns=span.duration_ns,
            collection=self.collected_since(),
        )
        self._told = {one.tid: one for one in live}
        self._gone.clear()
        self._sums.clear()
        return record

    def collected(self) -> Collection:
        """How complete the recording is."""
        how = f"eBPF at switches and {self._rate_hz} times a second"
        return self._stacks.collection(how, self._target, losses(self.program, _LOST))


class _Sums:
    """Waits, holds and blocks by the text of their stacks, moved out of the kernel's tables again and again.

    Args:
        program: Sums up a turn at a time.
        stacks: Those that it refers to.
    """

    def __init__(self, program: Program, stacks: PythonStacks) -> None:
        self._stacks = stacks
        self._turns = Turns(program)
        self._tables = (
            (program.table("waits", _AT, TIMES), self._add_waits),
            (program.table("holds", _AT, _HELD), self._add_holds),
            (program.table("blocks", _BLOCKED, _U8), self._add_blocks),
        )
        self._waits: defaultdict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0, 0])
        self._holds: defaultdict[tuple[int, int], list[int]] = defaultdict(lambda: [0, 0])
        self._blocks: defaultdict[tuple[int, int, int, int], int] = defaultdict(int)

    def take(self) -> tuple[set[int], set[int]]:
        """Take in what is at rest; returns the ids of stacks, and the threads, that the rest refers to."""
        taken = [self._turns.take(table) for table, _ in self._tables]
        self._stacks.poll()
        for (_, add), (keys, values, _) in zip(self._tables, taken, strict=True):
            add(keys, values)
        self._turns.end()
        waits, holds, blocks = (one.left for one in taken)
        stacks = waits["stack"], holds["stack"], blocks["holder_stack"], blocks["waiter_stack"]
        threads = waits["tid"], holds["tid"], blocks["holder"], blocks["waiter"]
        return set(np.concatenate(stacks).tolist()), set(np.concatenate(threads).tolist())

    def take_all(self) -> None:
        """Take in everything, when nobody writes any more."""
        for table, add in self._tables:
            add(*table.items())

    def add_unfinished(self, tids: NDArray[Any], threads: NDArray[Any], end_ns: int) -> None:
        """What went on when the recording ended: up to its end."""
        waiting = np.flatnonzero(threads["since_ns"])
        for place in waiting:
            one = threads[place]
            wait_ns = (int(one["back_ns"]) or end_ns) - int(one["since_ns"])
            self._add_wait(int(tids[place]), int(one["stack"]), 1, wait_ns, wait_ns)
        for place in np.flatnonzero(threads["hold_ns"]):
            holder, off_ns = threads[place], int(threads[place]["hold_ns"])
            self._add_hold(int(tids[place]), int(holder["stack"]), 0, end_ns - off_ns)
            for other in waiting[_want_what_is_held(threads[waiting], holder)]:
                who = int(holder["stack"]), int(threads[other]["stack"]), int(tids[place]), int(tids[other])
                self._add_block(*who, end_ns - max(off_ns, int(threads[other]["since_ns"])))

    def _add_waits(self, keys: NDArray[Any], times: NDArray[Any]) -> None:
        for (stack, tid, _), (count, total_ns, max_ns) in zip(keys.tolist(), times.tolist(), strict=True):
            self._add_wait(tid, stack, count, total_ns, max_ns)

    def _add_wait(self, tid: int, stack: int, count: int, total_ns: int, max_ns: int) -> None:
        self._add_wait_at(tid, self._stacks.number(stack), count, total_ns, max_ns)

    def _add_wait_at(self, tid: int, number: int, count: int, total_ns: int, max_ns: int) -> None:
        wait = self._waits[tid, number]
        wait[0] += count
        wait[1] += total_ns
        wait[2] = max(wait[2], max_ns)

    def _add_holds(self, keys: NDArray[Any], times: NDArray[Any]) -> None:
        for (stack, tid, _), (on_ns, off_ns) in zip(keys.tolist(), times.tolist(), strict=True):
            self._add_hold(tid, stack, on_ns, off_ns)

    def _add_hold(self, tid: int, stack: int, on_ns: int, off_ns: int) -> None:
        self._add_hold_at(tid, self._stacks.number(stack), on_ns, off_ns)

    def _add_hold_at(self, tid: int, number: int, on_ns: int, off_ns: int) -> None:
        hold = self._holds[tid, number]
        hold[0] += on_ns
        hold[1] += off_ns

    def _add_blocks(self, keys: NDArray[Any], times: NDArray[Any]) -> None:
        for (above, below, holder, waiter, _, _), time_ns in zip(keys.tolist(), times.tolist(), strict=True):
            self._add_block(above, below, holder, waiter, time_ns)

    def _add_block(self, holder_stack: int, waiter_stack: int, holder: int, waiter: int, time_ns: int) -> None:
        number = self._stacks.number
        self._blocks[holder, number(holder_stack), waiter, number(waiter_stack)] += time_ns

    def join(self, groups: Mapping[int, int]) -> None:
        """Have these threads count as their groups: tid -> number of the group."""
        waits, holds, blocks = self._waits.copy(), self._holds.copy(), self._blocks.copy()
        self.clear()
        for (tid, stack), (count, total_ns, max_ns) in waits.items():
            self._add_wait_at(groups.get(tid, tid), stack, count, total_ns, max_ns)
        for (tid, stack), (on_ns, off_ns) in holds.items():
            self._add_hold_at(groups.get(tid, tid), stack, on_ns, off_ns)
        for (holder, above, waiter, below), time_ns in blocks.items():
            self._blocks[groups.get(holder, holder), above, groups.get(waiter, waiter), below] += time_ns

    def clear(self) -> None:
        """Remove all sums."""
        for sums in (self._waits, self._holds, self._blocks):
            sums.clear()

    def waits(self) -> tuple[Wait, ...]:
        """All waits so far."""
        spelled = self._stacks.spelled
        return tuple(Wait(tid, spelled(stack), *values) for (tid, stack), values in self._waits.items())

    def holds(self) -> tuple[Hold, ...]:
        """All times of holding so far."""
        spelled = self._stacks.spelled
        return tuple(Hold(tid, spelled(stack), *values) for (tid, stack), values in self._holds.items())

    def blocks(self) -> tuple[Block, ...]:
        """All times so far that one thread blocked another."""
        spelled = self._stacks.spelled
        return tuple(
            Block(holder, spelled(above), waiter, spelled(below), time_ns)
            for (holder, above, waiter, below), time_ns in self._blocks.items()
        )


class _Slices:
    """What happened when, in a bounded number of slices: if there are too many, each two become one.

    Args:
        length_ns: Of a slice; 0: as fits.
    """

    def __init__(self, length_ns: int) -> None:
        self._is_fixed = length_ns > 0
        self._length_ns = length_ns or _FIRST_SLICE_NS
        self._slices: list[Slice] = []
        self._last = (0, 0, 0)

    def is_due(self, now_ns: int) -> bool:
        """Is the current slice long enough?"""
        return now_ns - self._last[0] >= self._length_ns

    def add(self, now_ns: int, held_ns: int, wait_ns: int) -> None:
        """End a slice.

        Args:
            now_ns: Since the recording's beginning.
            held_ns, wait_ns: Sums since then.
        """
        start_ns, held_before_ns, wait_before_ns = self._last
        if now_ns <= start_ns:
            return
        self._slices.append(Slice(start_ns, now_ns, max(held_ns - held_before_ns, 0), max(wait_ns - wait_before_ns, 0)))
        self._last = (now_ns, held_ns, wait_ns)
        if len(self._slices) > MOST_SLICES and not self._is_fixed:
            self._length_ns *= 2
            self._slices = joined_slices(self._slices)

    def take(self, start_ns: int) -> tuple[Slice, ...]:
        """The slices since the last call, with times since `start_ns`."""
        taken, self._slices = self._slices, []
        return tuple(
            replace(one, start_ns=max(one.start_ns - start_ns, 0), end_ns=one.end_ns - start_ns) for one in taken
        )


def _want_what_is_held(waiting: NDArray[Any], holder: Any) -> NDArray[np.bool_]:
    """Which of these wait for the lock that this thread holds. A child has its lock at the same address."""
    is_same = (waiting["gil"] == holder["gil"]) & (waiting["track"]["tgid"] == holder["track"]["tgid"])
    return np.asarray(is_same & (waiting["back_ns"] == 0), np.bool_)


def _settle(threads: NDArray[Any], now_ns: int) -> None:
    """Add what goes on to the threads' sums, as if it ended now."""
    now = np.uint64(now_ns)
    waits = threads["since_ns"] > 0
    since, back = threads["since_ns"][waits], threads["back_ns"][waits]
    wait_ns = np.maximum(np.where(back > 0, back, now), since) - since
    threads["wait_total_ns"][waits] += wait_ns
    threads["wait_count"][waits] += np.uint64(1)
    threads["wait_max_ns"][waits] = np.maximum(threads["wait_max_ns"][waits], wait_ns)
    for since_name, total_name in (("hold_ns", "held_off_ns"), ("handover_ns", "handover_total_ns")):
        goes_on = threads[since_name] > 0
        begun = threads[since_name][goes_on]
        threads[total_name][goes_on] += np.maximum(begun, now) - begun


def _joined_threads(number: int, name: str, threads: Sequence[GilThread]) -> GilThread:
    """Merge the ended threads of a process."""
    sums = {field: sum(getattr(one, field) for one in threads) for field in _SUMS}
    longest_ns = max(one.wait_max_ns for one in threads)
    return GilThread(pid=threads[0].pid, tid=number, name=name, wait_max_ns=longest_ns, **sums)


def _since(now: GilThread, before: GilThread | None, waits: tuple[Wait, ...]) -> GilThread:
    """Return the increase of the sums since `before`; the longest wait is then that of these."""
    if before is None:
        return now
    sums = {name: getattr(now, name) - getattr(before, name) for name in _SUMS}
    longest_ns = max((wait.max_ns for wait in waits if wait.tid == now.tid), default=0)
    return replace(now, wait_max_ns=longest_ns, **sums)


def _thread(tid: int, name: str, entry: Any) -> GilThread:
    return GilThread(
        pid=int(entry["track"]["tgid"]),
        tid=tid,
        name=name,
        wait_count=int(entry["wait_count"]),
        wait_ns=int(entry["wait_total_ns"]),
        wait_max_ns=int(entry["wait_max_ns"]),
        held_on_ns=int(entry["held_on_ns"]),
        held_off_ns=int(entry["held_off_ns"]),
        cpu_ns=int(entry["on_cpu_ns"]),
        handover_ns=int(entry["handover_total_ns"]),
    )


def _watch(stacks: PythonStacks, target: Target) -> None:
    """Begin to walk the stacks of a process.

    Raises:
        NotPossibleError: It has no GIL, or none that we know.
    """
    try:
        stacks.watch(target)
    except NotPossibleError as error:
        if "free-threaded" not in error.message:
            raise
        raise NotPossibleError(
            f"process {target.pid} ({target.interpreter}) has no interpreter lock: it is a free-threaded build",
            "'pprofpy off-cpu' shows what its threads wait for",
        ) from error


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
