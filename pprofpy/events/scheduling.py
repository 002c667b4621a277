"""Scheduling events among recorded ones: from an event log to a Trace, and to the system calls that threads block in.

Source: the tracepoints sched:sched_switch, sched:sched_waking (or sched:sched_wakeup) and sched:sched_wakeup_new.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pprofpy.errors import ProfileFormatError
from pprofpy.events.log import BY_OTHERS, CONTEXT_SHIFT, Batch, EventLog, Records, call_name, known_at_ns
from pprofpy.events.syscalls import BEGAN_UNSEEN, NEVER_RETURNS
from pprofpy.events.tracepoint import Columns, Ints, Tracepoint, as_text
from pprofpy.model.profile import Collection
from pprofpy.model.timeline import BlockingCall
from pprofpy.model.trace import IDLE, RECORD, Context, Kind, Trace, TracedThread

SWITCH = "sched:sched_switch"
_WAKEUPS = {
    "sched:sched_waking": Kind.WAKEUP,
    "sched:sched_wakeup": Kind.WAKEUP,
    "sched:sched_wakeup_new": Kind.NEW,
}
_REPORTED_IDLE = 0x80
_RUNNABLE_BITS = 0x7F | _REPORTED_IDLE
"""The states in which a thread does not run; the next bit means that it was preempted."""


def to_trace(log: EventLog, batches: Iterable[Batch], duration_ns: int, collection: Collection) -> Trace:
    """The scheduling events as a Trace.

    Raises:
        ProfileFormatError: No switches were recorded.
    """
    names = [one.name for one in log.tracepoints]
    if SWITCH not in names:
        raise ProfileFormatError(
            "a timeline needs the scheduler's events, which were not recorded",
            "pprofpy trace -e 'sched:sched_switch,sched:sched_waking,*' -o FILE.trace",
        )
    wakeups = [name for name in _WAKEUPS if name in names]
    if "sched:sched_waking" in wakeups and "sched:sched_wakeup" in wakeups:
        wakeups.remove("sched:sched_wakeup")  # the same wake-up, told twice
    threads: dict[int, TracedThread] = {}
    named: dict[int, TracedThread] = {}
    parts = [np.zeros(0, RECORD)]
    for batch in batches:
        _meet(threads, batch)
        named |= {tid: TracedThread(pid, name, True) for tid, (pid, name) in batch.threads.items()}
        for name in (SWITCH, *wakeups):
            place = names.index(name)
            records = batch.records[batch.records["head"]["event"] == place]
            if len(records):
                parts.append(_converted(log.tracepoints[place], records, threads))
    records = np.concatenate(parts)
    records = records[np.argsort(records["ts_ns"], kind="stable")]
    duration_ns = duration_ns or (int(records["ts_ns"][-1]) - log.start_ns if len(records) else 0)
    return Trace(records, threads | named, log.start_ns, log.time_ns, duration_ns, collection)


def calls_by_thread(log: EventLog, batches: Iterable[Batch]) -> dict[int, list[BlockingCall]]:
    """System calls by thread, in order of time."""
    found: dict[int, list[BlockingCall]] = {}
    stacks: dict[int, tuple[str, ...]] = {}
    for batch in batches:
        stacks.update(batch.stacks)
        calls = batch.all_calls()
        calls = calls[calls["head"]["flags"] & (BEGAN_UNSEEN | NEVER_RETURNS) == 0]
        heads = calls["head"]
        columns = (heads["tid"], heads["ts_ns"], known_at_ns(calls), heads["event"], heads["flags"], heads["stack"])
        for tid, start_ns, end_ns, event, flags, stack in zip(*(one.tolist() for one in columns), strict=True):
            call = BlockingCall(start_ns, end_ns, call_name(event, flags, log.machine), stacks.get(stack, ()))
            found.setdefault(tid, []).append(call)
    return {tid: sorted(calls) for tid, calls in found.items()}


def stacks_at_switches(log: EventLog, batches: Iterable[Batch]) -> dict[tuple[int, int], tuple[str, ...]]:
    """Where threads left their CPUs, as far as that was recorded: (tid, when) -> stack, innermost function first."""
    found: dict[tuple[int, int], tuple[str, ...]] = {}
    stacks: dict[int, tuple[str, ...]] = {}
    places = [place for place, one in enumerate(log.tracepoints) if one.name == SWITCH]
    for batch in batches:
        stacks.update(batch.stacks)
        heads = batch.records["head"]
        heads = heads[np.isin(heads["event"], places) & (heads["stack"] != 0)]
        for tid, ts_ns, stack in zip(*(heads[name].tolist() for name in ("tid", "ts_ns", "stack")), strict=True):
            found[tid, ts_ns] = stacks.get(stack, ())
    return found


def _meet(threads: dict[int, TracedThread], batch: Batch) -> None:
    """Who did something; those who did it of their own, not to a watched thread, are watched themselves."""
    for heads in (batch.records["head"], batch.all_calls()["head"]):
        own = heads["flags"] & BY_OTHERS == 0
        for of_these, watched in ((heads[~own], False), (heads[own], True)):
            for tid, tgid, comm in np.unique(of_these[["tid", "tgid", "comm"]]).tolist():
                if tid and (watched or tid not in threads):
                    threads[tid] = TracedThread(tgid or tid, as_text(comm) or f"thread {tid}", watched)


def _converted(tracepoint: Tracepoint, records: Records, threads: dict[int, TracedThread]) -> NDArray[np.void]:
    _check(tracepoint)
    raw = np.ascontiguousarray(records["data"]).view(np.uint8).reshape(len(records), -1)
    columns, fields = Columns(raw), tracepoint.by_name
    converted = np.zeros(len(records), RECORD)
    converted["ts_ns"], converted["cpu"] = records["head"]["ts_ns"], records["head"]["cpu"]
    if tracepoint.name != SWITCH:
        context = records["head"]["flags"] >> CONTEXT_SHIFT
        if (context > max(Context)).any():
            raise ProfileFormatError("a wake-up in an unknown context")
        converted["kind"], converted["context"] = _WAKEUPS[tracepoint.name], context
        converted["from_tid"] = np.where(context == Context.TASK, records["head"]["tid"], 0)
        converted["to_tid"] = columns.numbers(fields["pid"])
        _name(threads, converted["to_tid"], columns.texts(fields["comm"]))
        return converted
    state = columns.numbers(fields["prev_state"])
    converted["kind"] = Kind.SWITCH
    converted["from_tid"] = columns.numbers(fields["prev_pid"])
    converted["to_tid"] = columns.numbers(fields["next_pid"])
    left = np.where(_was_preempted(state), 0, state & _RUNNABLE_BITS)
    converted["state"] = np.where(left == _REPORTED_IDLE, IDLE, left)
    if "wait_ns" in fields:  # a recorder of ours has taken it: see events.switches
        wait_ns, preempted = columns.numbers(fields["wait_ns"]), columns.numbers(fields["was_preempted"])
        if (wait_ns < 0).any() or (preempted & ~1).any():
            raise ProfileFormatError("a wait of an impossible length")
        converted["wait_ns"], converted["context"] = wait_ns, preempted
    _name(threads, converted["to_tid"], columns.texts(fields["next_comm"]))
    return converted


def _check(tracepoint: Tracepoint) -> None:
    """The fields that we need are there, and what they should be: a description may come from a file.

    Raises:
        ProfileFormatError: They are not.
    """
    is_switch = tracepoint.name == SWITCH
    needed: tuple[str, ...] = _OF_SWITCH if is_switch else _OF_WAKEUP
    if is_switch and "wait_ns" in tracepoint.by_name:
        needed += ("wait_ns", "was_preempted")
    fields = [tracepoint.by_name.get(name) for name in needed]
    if not all(one and (one.is_text if one.name.endswith("comm") else one.is_number) for one in fields):
        raise ProfileFormatError(f"the events {tracepoint.name} do not have the fields that they should have")


_OF_SWITCH = ("prev_pid", "prev_state", "next_pid", "next_comm")
_OF_WAKEUP = ("pid", "comm")


def _was_preempted(state: Ints) -> NDArray[np.bool_]:
    return np.asarray((state & _RUNNABLE_BITS == 0) | (state & (_RUNNABLE_BITS + 1) != 0))


def _name(threads: dict[int, TracedThread], tids: Records, names: list[str]) -> None:
    """Threads that are only ever named by others."""
    for tid, name in zip(tids.tolist(), names, strict=True):
        if tid and tid not in threads:
            threads[tid] = TracedThread(tid, name or f"thread {tid}", False)
