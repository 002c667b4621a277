"""Recording kernel events: every hit of the tracepoints and system calls asked for, and their sums.

The kernel side (`probes/trace.bpf.c`) filters, pairs and counts; what is sent arrives in ring buffers, one for each
size of record. What could not be sent is counted.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy import __version__
from pprofpy.arch import here
from pprofpy.collectors.kernel.label_options import NO_LABELS
from pprofpy.collectors.kernel.losses import losses
from pprofpy.collectors.kernel.merging import IN_FLIGHT_NS, MergedStream, in_order
from pprofpy.collectors.kernel.names import FD_MEMBERS, AddressNames, FdPaths
from pprofpy.collectors.kernel.recorder import KernelRecorder
from pprofpy.collectors.kernel.scheduler import scheduler_constants
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.kernel.source import ProbeSource
from pprofpy.collectors.kernel.tracepoints import Selection
from pprofpy.collectors.kernel.types import struct_offsets
from pprofpy.collectors.pystacks.records import python_constants, with_python
from pprofpy.collectors.pystacks.texts import StackTexts
from pprofpy.events.log import (
    CALL,
    CALL_WITH_STRINGS,
    HEAD,
    Batch,
    EventLog,
    EventStats,
    EventSummary,
    Records,
    call_name,
    heads,
    record_dtype,
    times_ns,
)
from pprofpy.events.syscalls import MAX_SYSCALLS, SYSCALLS
from pprofpy.events.tracepoint import Tracepoint, as_text
from pprofpy.model.latency import Histogram, histograms_by_owner
from pprofpy.model.profile import Collection, Profile, ValueType
from pprofpy.model.recording import Recording
from pprofpy.target import Target, procfs

DYNAMIC_BYTES = 256
"""What is kept of the strings and arrays behind a record's fixed fields."""

RECORD_BYTES = (64, 128, 320, 512)
"""The sizes of records that there are programs for. The kernel's own tracepoints fit into the last."""

_NEVER_NS = 1 << 63
_KEY = np.dtype([("tid", "u4"), ("event", "u2"), ("is_call", "u2")])
_SUMMARY = np.dtype(
    [
        ("count", "u8"),
        ("errors", "u8"),
        ("total_ns", "u8"),
        ("min_ns", "u8"),
        ("max_ns", "u8"),
        ("last_ns", "u8"),
        ("tgid", "u4"),
        ("reserved", "u4"),
        ("comm", "S16"),
    ]
)
_BUCKET = np.dtype([("tid", "u4"), ("event", "u2"), ("index", "u2")])
_U1, _U4, _U8 = np.dtype("u1"), np.dtype("u4"), np.dtype("u8")
_LAYOUTS = {
    "head": HEAD,
    "call": CALL,
    "call_with_strings": CALL_WITH_STRINGS,
    "summary_key": _KEY,
    "summary": _SUMMARY,
    "summary_bucket": _BUCKET,
}

_WANT_CALL, _WANT_FD = 0x80, 0x40
_LOST = (
    "tracepoint_events",
    "syscalls",
    "syscalls_under_way",
    "summary_rows",
    "summary_durations",
    "new_threads",
)
# Events done to a thread by somebody else name it in one of these fields.
_TASK_FIELDS = {"sched_switch": "next_pid", "signal_generate": "pid", "sched_process_wait": ""}


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """What to record.

    Attributes:
        selection: Which events.
        scope: Whose.
        tid: Only those of this thread; 0 for all.
        slower_than_ns: Only system calls that take at least this long.
        lines: Keep the events.
        summary: Sum them up in the kernel.
        stacks: With each event that is kept, the Python stack of the thread that causes it. Not of everybody's.
    """

    selection: Selection
    scope: Scope = field(default_factory=Scope)
    tid: int = 0
    slower_than_ns: int = 0
    lines: bool = True
    summary: bool = False
    stacks: bool = False


class EventRecorder(KernelRecorder):
    """Records events in their order; `read` hands them over, before and after `finish`.

    Raises (`open` and `watch`):
        NotPossibleError: eBPF does not work here; the hint tells why.
        TargetError: There is no such process.
    """

    kind = "trace"
    has_windows = False

    def __init__(self, options: TraceOptions) -> None:
        super().__init__()
        self._options = options
        self._target = "all processes"
        self._end_ns = 0

    def open(self) -> None:
        """Load the program and attach it."""
        options = self._options
        options.scope.check()
        selection = options.selection
        data_bytes = record_bytes(selection.tracepoints)
        self.load(source(data_bytes, stacks=options.stacks), self._values(), self._sizes())
        self._stacks = StackTexts(self.program, children=options.scope.children) if options.stacks else None
        self._open_rings(data_bytes)
        if self._stacks:
            self.owned.callback(self._stacks.close)
        if selection.tracepoints and not procfs.is_host_pid_namespace():
            self.remarks.append(
                "fields of tracepoints that name processes or threads hold the host's numbers; what others do to a "
                "thread is not traced in a pid namespace"
            )
        self._fill_tables()
        self._threads = self.program.table("target_threads", _U4, _U1)
        self._paths = FdPaths()
        self._symbols = AddressNames(selection.tracepoints)
        self.log = EventLog(selection.tracepoints, data_bytes, time.monotonic_ns(), time.time_ns())
        self._attach()
        if options.scope.pid:
            self._begin_to_watch(options.scope.pid)

    def _values(self) -> dict[str, int]:
        options = self._options
        kernel = scheduler_constants() | _file_constants() | (python_constants() if options.stacks else {})
        return {
            **kernel,
            **options.scope.parameters(),
            "SELF_TGID": os.getpid(),
            "TID": options.tid,
            "SLOWER_THAN_NS": options.slower_than_ns,
            "FOLLOW_CHILDREN": int(options.scope.children),
            "ADOPT_CHILDREN": int(options.scope.named_later),
            "LINES": int(options.lines),
            "SUMMARY": int(options.summary),
        }

    def _rings(self) -> dict[str, bool]:
        """Return the ring buffers, in the order of a Batch, and whether anything comes in them."""
        selection, lines = self._options.selection, self._options.lines
        calls = lines and bool(selection.syscalls)
        return {"records": lines and bool(selection.tracepoints), "calls": calls, "calls_with_strings": calls}

    def _sizes(self) -> dict[str, int]:
        rings = self._rings()
        unused = [name for name, is_wanted in rings.items() if not is_wanted]
        unused += [] if self._options.summary else ["summaries", "buckets"]
        unused += [] if rings["calls"] else ["pending_strings"]
        unused += [] if self._options.selection.syscalls else ["pending_calls"]
        return dict.fromkeys(unused, 0) | (NO_LABELS.sizes() if self._options.stacks else {})

    def _open_rings(self, data_bytes: int) -> None:
        dtypes = record_dtype(data_bytes), CALL, CALL_WITH_STRINGS
        self._streams = [
            MergedStream(self.program.events(name, dtype) if is_wanted else None, dtype, times_ns, self._number_stacks)
            for (name, is_wanted), dtype in zip(self._rings().items(), dtypes, strict=True)
        ]

    def _number_stacks(self, events: Records) -> None:
        if self._stacks:
            self._stacks.number(heads(events))

    def _fill_tables(self) -> None:
        wanted = self.program.table("wanted", _U4, _U1)
        for number in self._options.selection.syscalls:
            call = SYSCALLS[number]
            wanted.put(number, _WANT_CALL | call.string_mask | (_WANT_FD if call.begins_with_fd else 0))
        if len(self._options.selection.syscalls) == len(SYSCALLS):
            # Also those that are newer than we are, and those of 32-bit programs.
            for number in set(range(MAX_SYSCALLS)) - set(SYSCALLS):
                wanted.put(number, _WANT_CALL)

    def _attach(self) -> None:
        program, options = self.program, self._options
        if not options.scope.is_everybody:
            program.attach_raw("sched_process_fork", "on_fork")
            program.attach_raw("sched_process_exit", "on_thread_exit")
        for place, tracepoint in enumerate(options.selection.tracepoints):
            program.attach_tracepoint(
                tracepoint.number, "on_tracepoint", _cookie(place, tracepoint, self.log.data_bytes)
            )
        if options.selection.syscalls:
            program.attach_raw("sys_enter", "on_sys_enter")  # first: else calls return whose beginning was not seen
            if options.stacks:
                program.attach_raw("sys_exit", "on_sys_exit_walk")
            program.attach_raw("sys_exit", "on_sys_exit")

    def watch(self, target: Target) -> None:
        """Watch a process. Its threads are entered here; later ones as they begin."""
        self._begin_to_watch(target.pid)

    def _begin_to_watch(self, pid: int) -> None:
        self._target = f"pid {pid}"  # whoever names several processes names the recording
        if self._stacks:
            self._stacks.watch(pid)
        for member in self._options.scope.watch(self.program, pid):
            self._enter_threads(member)

    def enter(self, pid: int) -> None:
        """Watch a process of a control group."""
        if self._stacks:
            self._stacks.processes.enter(pid)
        self._options.scope.enter(self.program, pid)
        self._enter_threads(pid)

    def leave(self, pid: int) -> None:
        """Watch it no more. Threads that have ended, the kernel has removed already."""
        if self._stacks:
            self._stacks.processes.leave(pid)
        self._options.scope.leave(self.program, pid)
        self._threads.delete(np.array(procfs.tids(pid), _U4))

    def followed(self) -> set[int]:
        """As a recorder says it."""
        return self._options.scope.followed(self.program)

    def _enter_threads(self, pid: int) -> None:
        for tid in procfs.tids(pid):
            self._threads.put(tid, 1)

    # -- while it runs ---------------------------------------------------------------------------------------------

    def read(self) -> Iterator[Batch]:
        """The events since the last call, in order of time; call it every 50 ms or so. After the end: the last ones.

        Yields:
            Some megabytes at once.
        """
        until_ns = _NEVER_NS if self._end_ns else time.monotonic_ns() - IN_FLIGHT_NS
        for records, calls, calls_with_strings in in_order(self._streams, until_ns):
            batch = Batch(records, calls, calls_with_strings)
            paths, symbols = self._paths.of(batch.all_calls()), self._symbols.of(batch.records)
            stacks = self._stacks.of(batch) if self._stacks else {}
            yield Batch(records, calls, calls_with_strings, paths, symbols, stacks)

    def memory(self) -> str:
        """Return how much memory the recording uses, as text."""
        return self.program.memory(self._stacks.count if self._stacks else 0)

    def summary(self) -> EventSummary:
        """The sums so far. Only with `TraceOptions.summary`."""
        keys, values = self.program.table("summaries", _KEY, _SUMMARY).items()
        histograms = _histograms(*self.program.table("buckets", _BUCKET, _U8).items())
        stats = tuple(
            self._stats(key, value, histograms) for key, value in zip(keys.tolist(), values.tolist(), strict=True)
        )
        return EventSummary(stats, self.duration_ns, self.collected())

    @property
    def duration_ns(self) -> int:
        """How long it has been recording, or had been when it was stopped."""
        return (self._end_ns or self.recorded_until_ns()) - self.log.start_ns

    def _stats(
        self, key: tuple[int, int, int], value: tuple[Any, ...], histograms: Mapping[tuple[int, int], Histogram]
    ) -> EventStats:
        tid, event, is_call = key
        count, errors, total_ns, min_ns, max_ns, last_ns, tgid, _, comm = value
        if not is_call:
            name = self.log.tracepoints[event].name
            return EventStats(tgid, tid, as_text(comm), name, count, last_ns=last_ns, is_call=False)
        return EventStats(
            tgid,
            tid,
            as_text(comm),
            call_name(event, 0, self.log.machine),
            count,
            last_ns,
            errors=errors,
            total_ns=total_ns,
            min_ns=min_ns,
            max_ns=max_ns,
            histogram=histograms.get((tid, event), Histogram()),
        )

    def collected(self) -> Collection:
        """How it was recorded, and what was lost up to now."""
        lost = losses(self.program, _LOST)
        return Collection(
            engine=f"pprofpy {__version__}, eBPF at tracepoints",
            target=self._target,
            dropped=sum(lost.values()),
            losses=lost | (self._stacks.losses() if self._stacks else {}),
            notes=self._symbols.notes,
        )

    def finish(self) -> Recording:
        """End the recording; `read` then has the last events. Sums and losses can still be read."""
        self.program.detach()
        self._end_ns = self.recorded_until_ns()
        profile = Profile((ValueType("events", "count"),), time_ns=self.log.time_ns, duration_ns=self.duration_ns)
        profile.collection = self.collected()
        return Recording(self.kind, profile)


def source(data_bytes: int, *, stacks: bool) -> ProbeSource:
    """The program in the kernel.

    Args:
        data_bytes: What there is room for of the kernel's own record of a tracepoint.
        stacks: With Python stacks.
    """
    layouts = _LAYOUTS | {"record": record_dtype(data_bytes)}
    found = ProbeSource("trace.bpf.c", layouts, {"RECORD_BYTES": data_bytes})
    return with_python(found, STACKS=1) if stacks else found


def record_bytes(tracepoints: Iterable[Tracepoint]) -> int:
    """How much of each record to keep, so that all fields of all them fit: one of RECORD_BYTES, or more."""
    wanted = max((one.size + (DYNAMIC_BYTES if one.has_dynamic_fields else 0) for one in tracepoints), default=0)
    largest = RECORD_BYTES[-1]
    return next((size for size in RECORD_BYTES if wanted <= size), -(-wanted // largest) * largest)


def _cookie(place: int, tracepoint: Tracepoint, data_bytes: int) -> int:
    """What the kernel's program is told of a tracepoint. Source: `struct cookie` in trace.bpf.c."""
    size = data_bytes if tracepoint.has_dynamic_fields else tracepoint.size
    field = tracepoint.by_name.get(_TASK_FIELDS.get(tracepoint.event, "pid" if tracepoint.group == "sched" else ""))
    return int.from_bytes(
        struct.pack("<HHHH", place, size, field.offset if field and field.size == 4 else 0, 0), "little"
    )


def _file_constants() -> dict[str, int]:
    """Struct offsets that lead from a file descriptor to the file's name.

    Raises:
        NotPossibleError: This kernel has none of these.
    """
    members = (
        FD_MEMBERS
        | here().task_members
        | {
            "FILE_DENTRY": "file.f_path.dentry",
            "DENTRY_NAME": "dentry.d_name.name",
            "INODE_INO": "inode.i_ino",
        }
    )
    return struct_offsets(members, "its files are not as pprofpy knows them")


def _histograms(keys: NDArray[Any], counts: NDArray[Any]) -> dict[tuple[int, int], Histogram]:
    """Durations by thread and system call."""
    owners = keys["tid"].astype(np.int64) << 16 | keys["event"]
    found = histograms_by_owner(owners, keys["index"].astype(np.int64), counts.astype(np.int64))
    return {(owner >> 16, owner & 0xFFFF): histogram for owner, histogram in found.items()}
