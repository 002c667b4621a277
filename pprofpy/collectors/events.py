"""Any kernel event as a profile: counts, or the sums of one of its fields, by Python stack (`probes/events.bpf.c`).

Tracepoints, system calls (as they begin) and software events (page faults). What counts is in whose context an event
happens: a thread of the process causes it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.cpython.thread_names import ThreadNames
from pprofpy.collectors.kernel.label_options import TASKS_ONLY, LabelOptions
from pprofpy.collectors.kernel.recorder import KernelRecorder
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.kernel.source import ProbeSource
from pprofpy.collectors.kernel.tracepoints import Selection, select
from pprofpy.collectors.kernel.windows import TableWindows
from pprofpy.collectors.pystacks.records import python_constants, with_python
from pprofpy.collectors.pystacks.stacks import PythonStacks
from pprofpy.errors import UsageError
from pprofpy.events.syscalls import SYSCALLS
from pprofpy.events.tracepoint import Field, Tracepoint
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Collection, Frame, Function, Label, ValueType
from pprofpy.model.recording import Recording
from pprofpy.session.sums import ThreadSums, Who
from pprofpy.target import Target, open_target

SOFTWARE_EVENTS = {"page-faults": 2, "context-switches": 3, "minor-faults": 5, "major-faults": 6}
"""Names as `perf` has them -> numbers. Source: <linux/perf_event.h>, PERF_COUNT_SW_*."""

_ALIASES = {"faults": "page-faults", "cs": "context-switches"}
_COUNT = ValueType("events", "count")
_NO_PYTHON = Frame(Function("[no Python stack]"))
_EVENTS, _LOST_COUNT = range(2)

_U4, _U8 = np.dtype("u4"), np.dtype("u8")
_HIT = np.dtype([("stack", "u8"), ("tid", "u4"), ("tgid", "u4"), ("event", "u4"), ("window", "u4")])
_SUMS = np.dtype([("count", "u8"), ("weight", "i8")])
SOURCE = with_python(ProbeSource("events.bpf.c", {"hit": _HIT, "sums": _SUMS}))


@dataclass(frozen=True, slots=True)
class EventChoice:
    """What to count.

    Attributes:
        selection: Tracepoints and system calls.
        software: Names of SOFTWARE_EVENTS.
        weight: A field of all these tracepoints, to be summed up; empty to count only.
    """

    selection: Selection
    software: tuple[str, ...] = ()
    weight: str = ""

    @property
    def names(self) -> list[str]:
        """The events; an event's number is its place in here."""
        tracepoints = [one.name for one in self.selection.tracepoints]
        return [*tracepoints, *self.software, *(SYSCALLS[number].name for number in self.selection.syscalls)]

    @property
    def value_types(self) -> tuple[ValueType, ...]:
        """The sample types of the profile."""
        return (_COUNT, ValueType(self.weight, _unit_of(self.weight))) if self.weight else (_COUNT,)


def choose(wanted: Sequence[str], weight: str = "") -> EventChoice:
    """Find the events that `-e` names, as `pprofpy trace` does, and the field that `--weight` names.

    Raises:
        UsageError: There is no such event or field; the nearest names are suggested.
        NotPossibleError: The kernel's tracing files cannot be reached.
    """
    words = [word.strip() for value in wanted for word in value.split(",") if word.strip()]
    software = [name for word in words if (name := _ALIASES.get(word, word)) in SOFTWARE_EVENTS]
    others = [word for word in words if _ALIASES.get(word, word) not in SOFTWARE_EVENTS]
    selection = select(others) if others or not software else Selection((), ())
    choice = EventChoice(selection, tuple(dict.fromkeys(software)), weight)
    if weight:
        _check_weight(choice)
    return choice


def _check_weight(choice: EventChoice) -> None:
    if choice.software or choice.selection.syscalls:
        name = choice.names[-1]
        raise UsageError(
            f"{name} has no fields to weigh by",
            "tracepoints have: -e syscalls:sys_exit_read --weight ret, -e kmem:kmalloc --weight bytes_alloc",
        )
    for tracepoint in choice.selection.tracepoints:
        fields = _numeric_fields(tracepoint)
        if choice.weight not in fields:
            near = get_close_matches(choice.weight, fields, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(fields) or 'none'}"
            raise UsageError(f"{tracepoint.name} has no numeric field {choice.weight!r}", hint)


def _numeric_fields(tracepoint: Tracepoint) -> list[str]:
    return [field.name for field in tracepoint.fields if field.is_number and not field.is_pointer]


def _unit_of(field: str) -> str:
    """What a field's name tells of its unit. Source: include/trace/events/*.h."""
    if "bytes" in field:
        return "bytes"
    return "nanoseconds" if field.endswith("_ns") or field in ("delay", "runtime") else "count"


class EventProfileRecorder(KernelRecorder):
    """Counts events, from the moment that a process is named.

    Args:
        choice: What to count.
        scope: Whose; not everybody's.

    Raises (`open` and `watch`):
        NotPossibleError: eBPF cannot work here, or the process's stacks cannot be walked.
        TargetError: There is no such process.
    """

    kind = "events"

    def __init__(self, choice: EventChoice, scope: Scope, labels: LabelOptions = TASKS_ONLY) -> None:
        super().__init__()
        self._labels = labels
        self._choice = choice
        self._scope = scope
        self._target: Target | None = None
        self._names = ThreadNames()
        self._sums: ThreadSums[tuple[int, int]] = ThreadSums()

    def open(self) -> None:
        """Load the program and attach it to the events."""
        self._scope.check()
        program = self.load(SOURCE, python_constants(self._labels), self._labels.sizes())
        self._stacks = PythonStacks(program, children=self._scope.children, labels=self._labels)
        self.owned.callback(self._stacks.close)
        self._hits = program.table("hits", _HIT, _SUMS)
        self._windows = TableWindows(program)
        self._attach()
        self.begin()
        if self._scope.pid:
            self.watch(open_target(self._scope.pid))

    def _attach(self) -> None:
        program, selection = self.program, self._choice.selection
        for place, tracepoint in enumerate(selection.tracepoints):
            cookie = _cookie(place, tracepoint.by_name.get(self._choice.weight))
            program.attach_tracepoint(tracepoint.number, "on_tracepoint", cookie)
        place = len(selection.tracepoints)
        for name in self._choice.software:
            program.attach_software_event(SOFTWARE_EVENTS[name], "on_software_event", _cookie(place, None))
            place += 1
        if selection.syscalls:
            wanted = program.table("wanted", _U4, _U4)
            for number in selection.syscalls:
                place += 1
                wanted.put(number, place)
            program.attach_raw("sys_enter", "on_sys_enter")

    def watch(self, target: Target) -> None:
        """Count the events of a process, and of those that it has started if children are wanted."""
        is_first, self._target = self._target is None, target
        self._stacks.watch(target)
        if is_first:
            self.begin()

    def enter(self, pid: int) -> None:
        """Count the events of a process of a control group, if it is Python."""
        self._stacks.processes.enter(pid)

    def leave(self, pid: int) -> None:
        """Count its events no more."""
        self._stacks.processes.leave(pid)

    def followed(self) -> set[int]:
        """As a recorder says it."""
        return self._stacks.processes.followed()

    # -- while it runs ---------------------------------------------------------------------------------------------

    def take_new(self) -> None:
        """Read new stacks."""
        self._stacks.poll()

    def drain(self) -> None:
        """Move the counts of finished windows from the kernel's table to user space."""
        keys, sums, left = self._windows.take(self._hits)
        self._stacks.poll()
        self._collect(keys, sums)
        self._windows.end()
        self._stacks.make_room(left["stack"].tolist())

    def window(self) -> Recording:
        """Return the events since the last window; those of the last moments are in the next one."""
        self.drain()
        return self._take_window(self.recorded_until_ns())

    def memory(self) -> str:
        """Return how much memory the recording uses, as text."""
        return self.program.memory(len(self._stacks))

    def _collect(self, keys: NDArray[Any], sums: NDArray[Any]) -> None:
        self._names.learn_all(self._stacks.runtimes, zip(keys["tgid"].tolist(), keys["tid"].tolist(), strict=True))
        for (stack, tid, pid, event, _), values in zip(keys.tolist(), sums.tolist(), strict=True):
            who = Who(pid, tid, self._names.name(pid, tid))
            self._sums.add(who, (self._stacks.number(stack), event), values)
        self._sums.make_room()

    # -- at its end ------------------------------------------------------------------------------------------------

    def finish(self) -> Recording:
        """End the recording and return everything since the last window."""
        self.program.detach()
        end_ns = self.recorded_until_ns()
        self._stacks.poll()
        self._collect(*self._hits.items())
        return self._take_window(end_ns)

    def _take_window(self, end_ns: int) -> Recording:
        """Return the sums so far and reset them for the next window."""
        names, types = self._choice.names, self._choice.value_types
        builder = ProfileBuilder(types)
        for (who, (stack, event)), values in self._sums.items():
            labels = (Label("event", names[event]), *who.labels(), *self._stacks.labels_of(stack))
            builder.add(self._stacks.spelled(stack) or (_NO_PYTHON,), values[: len(types)], labels)
        profile = builder.build()
        _, profile.time_ns, profile.duration_ns = self.begin_window(end_ns)
        self._sums.clear()
        self._stacks.end_window()
        profile.period_type, profile.period = _COUNT, 1
        profile.collection = self.collected_since()
        return Recording(self.kind, profile)

    def collected(self) -> Collection:
        """How complete the recording is."""
        tallies = self.program.table("tallies", _U4, _U8).items()[1].sum(axis=1).tolist()
        losses = {"events_full": tallies[_LOST_COUNT], "missed_events": self.program.missed()}
        return self._stacks.collection("eBPF", self._target, losses)


def _cookie(place: int, weight: Field | None) -> int:
    """What the kernel's program is told of an event. Source: `union cookie` in events.bpf.c."""
    where = (weight.offset, weight.size, weight.is_signed) if weight else (0, 0, False)
    return int.from_bytes(struct.pack("<HHBBH", place, *where, 0), "little")
