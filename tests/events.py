"""Recorded events built by hand: what the kernel's program would have written."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from pprofpy.events.log import CALL, CALL_WITH_STRINGS, Batch, EventLog, Records, record_dtype
from pprofpy.events.syscalls import HAS_FD_NAME
from pprofpy.events.tracepoint import parse_format

SWITCH_FORMAT = """name: sched_switch
ID: 1
format:
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char prev_comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;
\tfield:long prev_state;\toffset:32;\tsize:8;\tsigned:1;
\tfield:char next_comm[16];\toffset:40;\tsize:16;\tsigned:0;
\tfield:pid_t next_pid;\toffset:56;\tsize:4;\tsigned:1;

print fmt: "%d => %d", REC->prev_pid, REC->next_pid
"""
WAKING_FORMAT = """name: sched_waking
ID: 2
format:
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:char comm[16];\toffset:8;\tsize:16;\tsigned:0;
\tfield:pid_t pid;\toffset:24;\tsize:4;\tsigned:1;

print fmt: "pid=%d", REC->pid
"""
LOG = EventLog((parse_format("sched", SWITCH_FORMAT), parse_format("sched", WAKING_FORMAT)), 64, 1000, 10**18)
SWITCH, WAKING = 0, 1


def head(ts_ns: int, event: int, **others: Any) -> tuple[Any, ...]:
    given = {"tgid": 10, "tid": 10, "cpu": 0, "flags": 0, "comm": b"main", "stack": 0} | others
    return ts_ns, given["tgid"], given["tid"], given["cpu"], event, given["flags"], given["comm"], given["stack"]


def switch(ts_ns: int, prev: int, following: int, state: int = 0, **others: Any) -> tuple[Any, ...]:
    """`prev` leaves the CPU in `state` (0: runnable), `following` gets it."""
    data = struct.pack("<8x16si4xq16si4x", b"prev", prev, state, b"next", following)
    return head(ts_ns, SWITCH, tid=prev, **others), data


def waking(ts_ns: int, waker: int, wakee: int, **others: Any) -> tuple[Any, ...]:
    return head(ts_ns, WAKING, tid=waker, **others), struct.pack("<8x16si", b"wakee", wakee).ljust(64, b"\0")


def call(ts_ns: int, number: int, duration_ns: int = 0, result: int = 0, *args: int, **others: Any) -> tuple[Any, ...]:
    fd_name = others.pop("fd_name", b"")
    flags = others.pop("flags", 0) | (HAS_FD_NAME if fd_name else 0)
    registers = tuple(value & (1 << 64) - 1 for value in args) + (0,) * (6 - len(args))
    inode = others.pop("inode", 0)
    return head(ts_ns, number, flags=flags, **others), duration_ns, result, registers, inode, fd_name.ljust(48, b"\0")


def call_with_strings(one: tuple[Any, ...], *strings: bytes) -> tuple[Any, ...]:
    padded = [text.ljust(256, b"\0") for text in (*strings, b"", b"")[:2]]
    return one, np.array(padded, "V256")


def batch(
    records: list[Any] | None = None, calls: list[Any] | None = None, with_strings: list[Any] | None = None
) -> Batch:
    def array(rows: list[Any] | None, dtype: np.dtype[Any]) -> Records:
        return np.array(rows or [], dtype)

    return Batch(array(records, record_dtype(64)), array(calls, CALL), array(with_strings, CALL_WITH_STRINGS))
