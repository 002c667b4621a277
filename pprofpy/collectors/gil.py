"""The interpreter lock of a process: who waits for it, who holds it. Observed in the kernel by `bpf/gil.bpf.c`.

Exact: all times of waiting, and of holding off the CPU. From samples: holding while running, and so who blocks whom.

Source: the raw tracepoint sched_switch and a clock on every CPU; struct _gil_runtime_state in the process's memory.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.bpf import load
from pprofpy.collectors.bpf.loader import Program
from pprofpy.collectors.bpf.processes import Scope
from pprofpy.collectors.bpf.pystacks import PYTHON_LAYOUTS, PythonStacks, python_constants
from pprofpy.collectors.bpf.scheduler import scheduler_constants
from pprofpy.collectors.bpf.tables import Table
from pprofpy.collectors.cpython.threads import ThreadNames
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.gil import Block, GilRecord, GilThread, Hold, Slice, Wait
from pprofpy.profile import Collection, Stack
from pprofpy.target import Target, open_target
from pprofpy.units import NS_PER_S

DEFAULT_RATE_HZ = 997
"""A prime, so that no program with a round period keeps step."""

_MOST_WAITERS = 256
_MOST_SLICES = 240
_FIRST_SLICE_NS = NS_PER_S // 20

_U4, _U8 = np.dtype("u4"), np.dtype("u8")
_THREAD = np.dtype(
    [
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
        ("tgid", "u4"),
        ("place", "i4"),
        ("dead", "u4"),
        ("goes", "u4"),
    ]
)
_WAITER = np.dtype(
    [("since_ns", "u8"), ("back_ns", "u8"), ("gil", "u8"), ("stack", "u8"), ("tid", "u4"), ("tgid", "u4")]
)
_AT = np.dtype([("stack", "u8"), ("tid", "u4"), ("tgid", "u4")])
_TIMES = np.dtype([("count", "u8"), ("total_ns", "u8"), ("max_ns", "u8")])
_HELD = np.dtype([("on_ns", "u8"), ("off_ns", "u8")])
_BLOCKED = np.dtype(
    [
        ("holder_stack", "u8"),
        ("waiter_stack", "u8"),
        ("holder", "u4"),
        ("waiter", "u4"),
        ("tgid", "u4"),
        ("unused", "u4"),
    ]
)
_LAYOUTS = {
    "gil_thread": _THREAD,
    "waiter": _WAITER,
    "at": _AT,
    "times": _TIMES,
    "held": _HELD,
    "blocked": _BLOCKED,
}

_LOST = (
    "threads that found no room in the kernel's table",
    "waits that found no room in the kernel's table",
    "times of holding that found no room in the kernel's table",
    "blocked times that found no room in the kernel's table",
    "waits that no holder is blamed for: too many threads waited at once",
    "times off the CPU of which the kernel did not show the end",
)
"""In the order of the enum in gil.bpf.c."""


@dataclass(frozen=True, slots=True)
class GilOptions:
    """What to watch.

    Attributes:
        scope: Whose lock; one process.
        rate_hz: How often those who run are looked at.
        interval_ns: The length of a Slice; 0: as fits, and 240 of them at most.
    """

    scope: Scope
    rate_hz: int = DEFAULT_RATE_HZ
    interval_ns: int = 0


class GilRecorder:
    """A recording, from the moment that its process is named until `stop()`.

    Raises:
        NotPossibleError: eBPF cannot work here, or the process has no GIL, or none that we know.
        TargetError: There is no such process.
    """

    def __init__(self, options: GilOptions) -> None:
        options.scope.check()
        self._rate_hz = options.rate_hz
        self._slices = _Slices(options.interval_ns)
        self._target: Target | None = None
        self._names = ThreadNames(0)
        self._program = load(
            "gil.bpf.c",
            scheduler_constants()
            | python_constants()
            | {"MAX_WAITERS": _MOST_WAITERS, "PERIOD_NS": NS_PER_S // options.rate_hz},
            _LAYOUTS | PYTHON_LAYOUTS,
        )
        try:
            self._stacks = PythonStacks(self._program)
            self._threads = self._program.table("gil_threads", _U4, _THREAD)
            self._gone: list[GilThread] = []
            self._program.attach_raw("sched_switch", "on_switch_out")
            self._program.attach_raw("sched_switch", "on_switch_out_walk")
            self._program.attach_raw("sched_switch", "on_switch_in")
            self._program.attach_clock("on_clock", NS_PER_S // options.rate_hz)
            self.start_ns, self.time_ns = time.monotonic_ns(), time.time_ns()
            if options.scope.pid:
                self.watch(options.scope.pid)
        except BaseException:
            self._program.close()
            raise

    def watch(self, pid: int) -> None:
        """Name the process, if it was to be named later. The recording begins here."""
        self._target = target = open_target(pid)
        _check_libc(target)
        _watch(self._stacks, target)
        self._names = ThreadNames(pid)
        self.start_ns, self.time_ns = time.monotonic_ns(), time.time_ns()

    # -- while it runs ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take in stacks, and what the lock did meanwhile; call it some ten times a second."""
        self._stacks.poll()
        self._take_slice(self._threads.items()[1])

    def drain(self) -> None:
        """Move threads that have ended out of the kernel's tables."""
        self.tick()
        tids, threads = self._threads.items()
        self._learn_names(tids)
        dead = threads["dead"] == 1
        if dead.any():
            self._gone += self._named(tids[dead], threads[dead])
            self._threads.delete(tids[dead])

    def _learn_names(self, tids: NDArray[Any]) -> None:
        if self._target and (runtime := self._stacks.runtimes.get(self._target.pid)):
            self._names.learn(runtime, set(tids.tolist()))

    def _named(self, tids: NDArray[Any], threads: NDArray[Any]) -> list[GilThread]:
        return [_thread(tid, self._names.name(tid), one) for tid, one in zip(tids.tolist(), threads, strict=True)]

    def _take_slice(self, threads: NDArray[Any], *, is_last: bool = False) -> None:
        now_ns = time.monotonic_ns() - self.start_ns
        if is_last or self._slices.is_due(now_ns):
            self._slices.add(now_ns, *self._sums(threads))

    def _sums(self, threads: NDArray[Any]) -> tuple[int, int]:
        """Holding and waiting of all threads up to now, what goes on included."""
        _settle(threads, time.monotonic_ns())
        gone_held_ns, gone_wait_ns = (sum(getattr(one, name) for one in self._gone) for name in ("held_ns", "wait_ns"))
        held_ns = int((threads["held_on_ns"] + threads["held_off_ns"]).sum())
        return gone_held_ns + held_ns, gone_wait_ns + int(threads["wait_total_ns"].sum())

    # -- at its end ------------------------------------------------------------------------------------------------

    def stop(self) -> GilRecord:
        """End the recording; everything that it found."""
        self._program.detach()
        end_ns = time.monotonic_ns()
        self._stacks.poll()
        tids, threads = self._threads.items()
        self._learn_names(tids)
        self._take_slice(threads.copy(), is_last=True)
        sums = _Sums(self._stacks)
        sums.add_tables(self._program)
        sums.add_unfinished(tids, threads, end_ns)
        _settle(threads, end_ns)
        return GilRecord(
            threads=(*self._gone, *self._named(tids, threads)),
            waits=tuple(Wait(*key, *values) for key, values in sums.waits.items()),
            holds=tuple(Hold(*key, *values) for key, values in sums.holds.items()),
            blocks=tuple(Block(*key, time_ns) for key, time_ns in sums.blocks.items()),
            slices=self._slices.all(),
            time_ns=self.time_ns,
            duration_ns=end_ns - self.start_ns,
            collection=self._collection(),
        )

    def _collection(self) -> Collection:
        _, counts = self._program.table("lost", _U4, _U8).items()
        losses = {reason: int(count) for reason, count in zip(_LOST, counts.sum(axis=1), strict=True)}
        losses["events that the kernel did not hand over"] = self._program.missed()
        return self._stacks.collection(f"eBPF at switches and {self._rate_hz} times a second", self._target, losses)

    def close(self) -> None:
        """Leave nothing in the kernel."""
        self._stacks.close()
        self._program.close()

    def __enter__(self) -> GilRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Sums:
    """Waits, holds and blocks by stack: the kernel may have several numbers for what reads the same.

    Attributes:
        waits: (tid, stack) -> [count, total, longest].
        holds: (tid, stack) -> [on the CPU, off the CPU].
        blocks: (holder, its stack, waiter, its stack) -> nanoseconds.
    """

    def __init__(self, stacks: PythonStacks) -> None:
        self._frames = stacks.frames
        self.waits: defaultdict[tuple[int, Stack], list[int]] = defaultdict(lambda: [0, 0, 0])
        self.holds: defaultdict[tuple[int, Stack], list[int]] = defaultdict(lambda: [0, 0])
        self.blocks: defaultdict[tuple[int, Stack, int, Stack], int] = defaultdict(int)

    def add_tables(self, program: Program) -> None:
        """What the kernel has summed up."""
        for (stack, tid, _), times in _rows(program.table("waits", _AT, _TIMES)):
            self._add_wait(tid, stack, *times)
        for (stack, tid, _), times in _rows(program.table("holds", _AT, _HELD)):
            self._add_hold(tid, stack, *times)
        for (above, below, holder, waiter, _, _), time_ns in _rows(program.table("blocks", _BLOCKED, _U8)):
            self.blocks[holder, self._frames(above), waiter, self._frames(below)] += time_ns

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
            for other in waiting[(threads["gil"][waiting] == holder["gil"]) & (threads["back_ns"][waiting] == 0)]:
                waiter = threads[other]
                key = (int(tids[place]), self._frames(int(holder["stack"])))
                key_of_waiter = (int(tids[other]), self._frames(int(waiter["stack"])))
                self.blocks[*key, *key_of_waiter] += end_ns - max(off_ns, int(waiter["since_ns"]))

    def _add_wait(self, tid: int, stack: int, count: int, total_ns: int, max_ns: int) -> None:
        wait = self.waits[tid, self._frames(stack)]
        wait[0] += count
        wait[1] += total_ns
        wait[2] = max(wait[2], max_ns)

    def _add_hold(self, tid: int, stack: int, on_ns: int, off_ns: int) -> None:
        hold = self.holds[tid, self._frames(stack)]
        hold[0] += on_ns
        hold[1] += off_ns


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
        if len(self._slices) > _MOST_SLICES and not self._is_fixed:
            self._length_ns *= 2
            self._slices = [_joined(self._slices[i : i + 2]) for i in range(0, len(self._slices), 2)]

    def all(self) -> tuple[Slice, ...]:
        """The slices so far."""
        return tuple(self._slices)


def _joined(slices: list[Slice]) -> Slice:
    return Slice(
        slices[0].start_ns,
        slices[-1].end_ns,
        sum(one.held_ns for one in slices),
        sum(one.wait_ns for one in slices),
    )


def _rows(table: Table) -> Iterator[tuple[Any, Any]]:
    keys, values = table.items()
    return zip(keys.tolist(), values.tolist(), strict=True)


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


def _thread(tid: int, name: str, entry: Any) -> GilThread:
    return GilThread(
        pid=int(entry["tgid"]),
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
        maps = Path(f"/proc/{target.pid}/maps").read_bytes()
    except OSError as error:
        raise TargetError(f"process {target.pid} ended just now") from error
    if re.search(rb"/(ld-musl|libc\.musl)[^/\n]*$", maps, re.MULTILINE):
        raise NotPossibleError(
            f"the interpreter lock of process {target.pid} cannot be watched: its C library is musl, not glibc",
            "'pprofpy cpu --gil' shows who holds it",
        )
