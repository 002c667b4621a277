"""Recorded events as a Profile: how often each happened and how long system calls took, by Python stack and thread.

The innermost frame is the event: a system call's name, or `group:event`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pprofpy.events.log import Batch, EventLog, Records, call_name
from pprofpy.events.syscalls import BEGAN_UNSEEN, IS_32_BIT, NEVER_RETURNS
from pprofpy.events.tracepoint import as_text
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import (
    KERNEL_MAPPING,
    PYTHON_MAPPING,
    Collection,
    Frame,
    Function,
    Label,
    Profile,
    Stack,
    ValueType,
)
from pprofpy.recent import Recent

EVENT_TYPES = ValueType("events", "count"), ValueType("time", "nanoseconds")
_MOST_STACKS = 65_536
_FRAME = re.compile(r"(?P<name>.*) \((?P<file>.*):(?P<line>[0-9]{1,9})\)", re.DOTALL)
"""See `frame_text`."""


class ToldStacks:
    """The stacks that batches have told so far, by number.

    A recording tells a stack when it is first met, and again when it was not met for a while: it may be forgotten here,
    if not as early as there. A file may be read at any pace: what counts is how many others came since.
    """

    def __init__(self) -> None:
        self._known: Recent[int, Stack] = Recent(_MOST_STACKS, seconds=math.inf)

    def take(self, batch: Batch) -> None:
        """Take in those of a batch."""
        for number, words in batch.stacks.items():
            self._known[number] = frames_of(words)

    def of(self, number: int) -> Stack:
        """A stack, leaf-first; empty for none."""
        return self._known.get(number) or ()


class EventSums:
    """Sums up events, as they come.

    Args:
        log: What is watched.
    """

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._stacks = ToldStacks()
        self._builder = _builder()

    def add(self, batch: Batch) -> None:
        """Add events."""
        self._stacks.take(batch)
        heads = batch.records["head"]
        names = [one.name for one in self._log.tracepoints]
        self._add(heads, np.zeros(len(heads), np.int64), lambda event, flags: names[event])
        calls = batch.all_calls()
        is_timed = calls["head"]["flags"] & (BEGAN_UNSEEN | NEVER_RETURNS) == 0
        times_ns = np.where(is_timed, calls["duration_ns"], 0).astype(np.int64)
        self._add(calls["head"], times_ns, lambda number, flags: call_name(number, flags, self._log.machine))

    def _add(self, heads: Records, times_ns: NDArray[np.int64], name: Callable[[int, int], str]) -> None:
        keys = np.empty(len(heads), _KEY)
        for field in ("stack", "tgid", "tid", "event", "comm"):
            keys[field] = heads[field]
        keys["flags"] = heads["flags"] & IS_32_BIT
        groups, places = np.unique(keys, return_inverse=True)
        counts, sums = np.bincount(places, minlength=len(groups)), np.zeros(len(groups), np.int64)
        np.add.at(sums, places, times_ns)
        for key, count, total_ns in zip(groups.tolist(), counts.tolist(), sums.tolist(), strict=True):
            stack, tgid, tid, event, flags, comm = key
            what = self._builder.frame_location(Frame(Function(name(event, flags))), KERNEL_MAPPING)
            above = [self._builder.frame_location(frame) for frame in self._stacks.of(stack)]
            labels = (Label("thread", as_text(comm)), Label("tid", tid), Label("pid", tgid))
            self._builder.add_locations((what, *above), (count, total_ns), labels)

    def take(self, time_ns: int, duration_ns: int, collection: Collection) -> Profile:
        """What was added since the last call.

        Args:
            time_ns: When that began, Unix time.
            duration_ns: How long it lasted.
            collection: How it was recorded.
        """
        profile, self._builder = self._builder.build(), _builder()
        profile.period_type, profile.period = EVENT_TYPES[0], 1
        profile.time_ns, profile.duration_ns, profile.collection = time_ns, duration_ns, collection
        return profile


_KEY = np.dtype([("stack", "u8"), ("tgid", "u4"), ("tid", "u4"), ("event", "u2"), ("flags", "u4"), ("comm", "S16")])


def _builder() -> ProfileBuilder:
    builder = ProfileBuilder(EVENT_TYPES)
    builder.mapping(PYTHON_MAPPING)  # first of all: tables are headed by the first mapping's name
    return builder


def frames_of(words: Iterable[str]) -> Stack:
    """A stack from its frames in words, leaf-first: inverse of `frame_text`."""
    return tuple(map(_frame, words))


def frame_text(frame: Frame) -> str:
    """A frame in words, as a recording of events has it: `module.function (file:line)`."""
    function = frame.function
    return f"{function.name} ({function.filename}:{frame.line})" if function.filename else function.name


@lru_cache(1 << 14)
def _frame(words: str) -> Frame:
    found = _FRAME.fullmatch(words)
    if not found:
        return Frame(Function(words))
    return Frame(Function(found["name"], found["name"], found["file"]), int(found["line"]))
