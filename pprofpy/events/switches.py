"""Scheduling events that a recorder of its own has taken, as the events of tracepoints: one format for both.

They have the tracepoints' names and main fields, so that whatever reads those reads these; what the kernel's own lack
is in fields of ours: how long the thread that is switched in had waited for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pprofpy.events.log import BY_OTHERS, CONTEXT_SHIFT, Records, record_dtype
from pprofpy.events.tracepoint import parse_format
from pprofpy.model.trace import IDLE, Context, Kind

_SWITCH = """name: sched_switch
ID: 1
format:
\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:unsigned int prev_state;\toffset:28;\tsize:4;\tsigned:0;
\tfield:char next_comm[16];\toffset:32;\tsize:16;\tsigned:0;
\tfield:pid_t next_pid;\toffset:48;\tsize:4;\tsigned:1;
\tfield:unsigned int was_preempted;\toffset:52;\tsize:4;\tsigned:0;
\tfield:u64 wait_ns;\toffset:56;\tsize:8;\tsigned:0;

print fmt: "prev_comm=%s prev_pid=%d prev_state=%s ==> next_comm=%s next_pid=%d wait_ns=%llu", REC->prev_comm, \
REC->prev_pid, REC->prev_state ? __print_flags(REC->prev_state, "|", { 1, "S" }, { 2, "D" }, { 4, "T" }, { 8, "t" }, \
{ 16, "X" }, { 32, "Z" }, { 64, "P" }, { 128, "I" }) : "R", REC->next_comm, REC->next_pid, REC->wait_ns
"""
_WAKEUP = """name: {}
ID: {}
format:
\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;

print fmt: "comm=%s pid=%d", REC->comm, REC->pid
"""
TRACEPOINTS = tuple(
    parse_format("sched", text)
    for text in (_SWITCH, _WAKEUP.format("sched_waking", 2), _WAKEUP.format("sched_wakeup_new", 3))
)
"""In the order of `model.trace.Kind`."""

DATA_BYTES = 64
_SWITCH_DATA = np.dtype(
    [
        ("common", "V8"), ("prev_comm", "S16"), ("prev_pid", "u4"), ("prev_state", "u4"), ("next_comm", "S16"),
        ("next_pid", "u4"), ("was_preempted", "u4"), ("wait_ns", "u8"),
    ]
)  # fmt: skip
_WAKEUP_DATA = np.dtype([("common", "V8"), ("comm", "S16"), ("pid", "u4"), ("rest", "V36")])


class Known(NamedTuple):
    """What is known of a thread; all empty if nothing is.

    Attributes:
        pid: Its process.
        comm: The kernel's name of it.
        watched: Does the recording follow it?
    """

    pid: int = 0
    comm: bytes = b""
    watched: bool = False


def to_records(events: NDArray[np.void], who: Callable[[int], Known]) -> Records:
    """Scheduling events as records of TRACEPOINTS.

    Args:
        events: `model.trace.RECORD`.
        who: Tells of a thread; asked once for each.

    Returns:
        `events.log.record_dtype(DATA_BYTES)`, in the same order.
    """
    made = np.zeros(len(events), record_dtype(DATA_BYTES))
    of = _Threads(events, who)
    head, heads_of = made["head"], of.places(events["from_tid"])
    head["ts_ns"], head["cpu"], head["event"], head["tid"] = (
        events["ts_ns"], events["cpu"], events["kind"], events["from_tid"],
    )  # fmt: skip
    head["tgid"], head["comm"] = of.pids[heads_of], of.comms[heads_of]
    is_switch = events["kind"] == Kind.SWITCH
    context = np.where(is_switch, Context.TASK, events["context"]).astype(np.uint32)
    head["comm"] = np.where(
        context == Context.IRQ, b"irq", np.where(context == Context.SOFTIRQ, b"softirq", head["comm"])
    )
    head["flags"] = np.where(of.watched[heads_of], 0, BY_OTHERS) | context << CONTEXT_SHIFT
    raw = np.zeros((len(events), DATA_BYTES), np.uint8)
    raw[is_switch] = _switches(events[is_switch], of)
    raw[~is_switch] = _wakeups(events[~is_switch], of)
    made["data"] = np.ascontiguousarray(raw).view(f"V{DATA_BYTES}")[:, 0]
    return made


class _Threads:
    """The threads of some events."""

    def __init__(self, events: NDArray[np.void], who: Callable[[int], Known]) -> None:
        self._tids = np.unique(np.concatenate([events["from_tid"], events["to_tid"]]))
        known = [who(tid) if tid else Known(0, b"swapper") for tid in self._tids.tolist()]
        self.pids = np.array([one.pid for one in known], np.uint32)
        self.comms = np.array([one.comm for one in known], "S16")
        self.watched = np.array([one.watched for one in known], np.bool_)

    def places(self, tids: NDArray[np.uint32]) -> NDArray[np.int64]:
        return np.searchsorted(self._tids, tids)


def _switches(events: NDArray[np.void], of: _Threads) -> NDArray[np.uint8]:
    data = np.zeros(len(events), _SWITCH_DATA)
    data["prev_comm"], data["next_comm"] = (
        of.comms[of.places(events["from_tid"])],
        of.comms[of.places(events["to_tid"])],
    )
    data["prev_pid"], data["next_pid"] = events["from_tid"], events["to_tid"]
    data["prev_state"], data["was_preempted"] = reported(events["state"]), events["context"]
    data["wait_ns"] = events["wait_ns"]
    return data.view(np.uint8).reshape(len(data), DATA_BYTES)


def reported(states: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The tracepoint's bit for a state of a task. Source: `__trace_sched_switch_state` in <trace/events/sched.h>."""
    bits = states & 0x7F
    lowest = bits & (~bits + 1)
    is_dead = (bits == 0) & (states & _TASK_DEAD != 0)
    others = np.where(is_dead, _DEAD, np.where(states == 0, 0, _UNINTERRUPTIBLE))  # waits for a lock of the kernel's
    return np.where(states & IDLE == IDLE, _REPORTED_IDLE, np.where(lowest, lowest, others)).astype(np.uint32)


_UNINTERRUPTIBLE, _DEAD, _REPORTED_IDLE, _TASK_DEAD = 0x02, 0x10, 0x80, 0x80


def _wakeups(events: NDArray[np.void], of: _Threads) -> NDArray[np.uint8]:
    data = np.zeros(len(events), _WAKEUP_DATA)
    data["comm"], data["pid"] = of.comms[of.places(events["to_tid"])], events["to_tid"]
    return data.view(np.uint8).reshape(len(data), DATA_BYTES)
