"""An event in words: what happened, to whom, for how long."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pprofpy.events.event_profile import ToldStacks
from pprofpy.events.log import FD_NAME_BYTES, Batch, EventLog, FdKey, Records, call_name, has_fd_name
from pprofpy.events.printfmt import Formatter, compile_format
from pprofpy.events.syscalls import BEGAN_UNSEEN, IS_32_BIT, NEVER_RETURNS, Syscall, arguments_in_words, result_in_words
from pprofpy.events.syscalls import syscall as syscall_by_number
from pprofpy.events.tracepoint import Columns, as_text
from pprofpy.model.profile import Stack
from pprofpy.recent import Recent

_MOST_PATHS = 65_536
"""So many paths of open files are kept, those that were used last: more than a recording remembers to have told."""


class TracedEvent(NamedTuple):
    """One event: a line that is printed, and a row of the table `events`.

    Attributes:
        at_ns: When it happened, since the recording began; of a call: when it began.
        duration_ns: How long a call took; -1 for what has no duration.
        cpu, pid, tid: Where and who; of a call: where it returned.
        thread: The thread's name, safe to print.
        event: `group:event`, or a system call's name.
        text: Its arguments (and of a call its result) in words.
        stack: The Python stack of the thread, leaf-first; empty if it was not recorded.
    """

    at_ns: int
    duration_ns: int
    cpu: int
    pid: int
    tid: int
    thread: str
    event: str
    text: str
    stack: Stack = ()


class Narrator:
    """Puts events into words.

    Args:
        log: What was watched.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._formatters: dict[int, Formatter] = {}
        self._paths: Recent[FdKey, str] = Recent(_MOST_PATHS, seconds=math.inf)
        self._symbols: dict[int, str] = {}
        self._stacks = ToldStacks()

    def lines(self, batch: Batch) -> list[TracedEvent]:
        """All events of a batch, in order of time."""
        for key, path in batch.fd_paths.items():
            self._paths[key] = path
        self._symbols.update(batch.symbols)
        self._stacks.take(batch)
        texts: list[TracedEvent] = [*self._records(batch.records), *self._calls(batch)]
        return [texts[place] for place in batch.order().tolist()]

    def _records(self, records: Records) -> list[TracedEvent]:
        events = records["head"]["event"]
        words: list[tuple[str, str]] = [("", "")] * len(records)
        for event in np.unique(events).tolist():
            places = np.flatnonzero(events == event)
            raw = np.ascontiguousarray(records["data"][places]).view(np.uint8).reshape(len(places), -1)
            name = self._log.tracepoints[event].name
            for place, text in zip(places.tolist(), self._formatter(event)(Columns(raw)), strict=True):
                words[place] = name, text
        return self._with_heads(records["head"], [-1] * len(records), words)

    def _formatter(self, event: int) -> Formatter:
        if event not in self._formatters:
            self._formatters[event] = compile_format(self._log.tracepoints[event], self._symbols)
        return self._formatters[event]

    def _calls(self, batch: Batch) -> list[TracedEvent]:
        calls = batch.all_calls()
        heads, first_with_strings = calls["head"], len(batch.calls)
        kinds = heads["event"].astype(np.int64) | (heads["flags"].astype(np.int64) & _KIND) << 16
        names = self._fd_names(calls)
        words: list[tuple[str, str]] = [("", "")] * len(calls)
        for kind in np.unique(kinds).tolist():
            places = np.flatnonzero(kinds == kind)
            flags, call = kind >> 16, _syscall(kind & 0xFFFF, kind >> 16, self._log.machine)
            with_strings = batch.calls_with_strings["strings"][
                places[places >= first_with_strings] - first_with_strings
            ]
            strings = [[bytes(one) for one in with_strings[:, slot].tolist()] for slot in (0, 1)]
            texts = _call_texts(call, flags, calls[places], strings, [names[place] for place in places.tolist()])
            for place, text in zip(places.tolist(), texts, strict=True):
                words[place] = call.name, text
        durations = np.where(heads["flags"] & _TIMELESS != 0, -1, calls["duration_ns"].astype(np.int64))
        return self._with_heads(heads, durations.tolist(), words)

    def _with_heads(self, heads: Records, durations_ns: list[int], words: list[tuple[str, str]]) -> list[TracedEvent]:
        columns = (heads[name].tolist() for name in ("ts_ns", "cpu", "tgid", "tid", "comm", "stack"))
        start_ns, stacks = self._log.start_ns, self._stacks
        return [
            TracedEvent(
                ts_ns - start_ns, duration_ns, cpu, tgid, tid, _thread_name(comm), event, text, stacks.of(stack)
            )
            for ts_ns, cpu, tgid, tid, comm, stack, duration_ns, (event, text) in zip(
                *columns, durations_ns, words, strict=True
            )
        ]

    def _fd_names(self, calls: Records) -> list[str]:
        """What the first argument of each call stands for: the full path if it is known for sure, else its end."""
        names = [""] * len(calls)
        places = np.flatnonzero(has_fd_name(calls))
        named = calls[places]
        columns = (named["head"]["tgid"], named["args"][:, 0], named["inode"], named["fd_name"])
        for place, pid, fd, inode, name in zip(places.tolist(), *(one.tolist() for one in columns), strict=True):
            names[place] = self._paths.get(FdKey(pid, fd, inode)) or _short_name(name)
        return names


_TIMELESS = BEGAN_UNSEEN | NEVER_RETURNS
_RETURN_TWICE = frozenset({"clone", "clone3", "fork", "vfork"})
_KIND = BEGAN_UNSEEN | NEVER_RETURNS | IS_32_BIT


@lru_cache(4096)
def _short_name(content: bytes) -> str:
    return as_text(content) + ("…" if content.find(b"\0") == FD_NAME_BYTES - 1 else "")


@lru_cache(4096)
def _thread_name(comm: bytes) -> str:
    return as_text(comm)


@lru_cache(4096)
def _syscall(number: int, flags: int, machine: str) -> Syscall:
    if flags & IS_32_BIT:
        return Syscall(number, call_name(number, flags, machine), None)
    return syscall_by_number(number, machine)


def _call_texts(call: Syscall, flags: int, calls: Records, strings: list[list[bytes]], fds: list[str]) -> list[str]:
    results = [result_in_words(call, result, flags) for result in calls["result"].tolist()]
    if flags & BEGAN_UNSEEN:
        unseen = "in the new thread" if call.name in _RETURN_TWICE else "began before the recording"
        return [f"({unseen}) = {result}" for result in results]
    count = min(len(strings), call.string_mask.bit_count()) if len(strings[0]) == len(calls) else 0
    arguments = arguments_in_words(call, calls["args"], strings[:count], fds)
    return [f"({words}) = {result}" for words, result in zip(arguments, results, strict=True)]
