"""Where the kernel finds the labels of each process's stacks. Programs import asyncio, and modules with context
variables, when they please: so each is read again and again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from pprofpy.collectors.cpython.contexts import VARIABLE_DEFAULT
from pprofpy.collectors.cpython.dicts import Dicts
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.versions import Attributes
from pprofpy.collectors.kernel.label_options import LabelOptions, Variable
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.pystacks.label_places import LabelPlaces, find_places
from pprofpy.collectors.pystacks.labels import LABEL_SOURCE
from pprofpy.collectors.pystacks.processes import Process
from pprofpy.errors import PprofpyError
from pprofpy.system.blocking import BlockedError, bounded

_U4 = np.dtype("u4")
_READING_S = 0.5
_FIRST_PAUSE_NS, _LONGEST_PAUSE_NS = 250_000_000, 10_000_000_000
"""A process is read anew after a pause that doubles each time: modules are reloaded, variables made anew, too."""


_VALUES = {Attributes.IN_DICT: 0, Attributes.POINTED_TO: 1, Attributes.TAGGED: 2, Attributes.INLINE: 3}
"""Source: PYTHON_VALUES_* in python_tables.h."""

_AWAITING = (
    "task_awaited_by",
    "task_awaited_by_is_set",
    "function_closure",
    "frame_stack",
    "frame_depth",
    "frame_values",
    "awaited_before",
)


@dataclass(slots=True)
class _Reading:
    """When a process is read next, and the pause after that."""

    number: int
    due_ns: int
    pause_ns: int


class LabelSources:
    """Where the labels of the processes are that one loaded program watches.

    Args:
        program: Includes python.h.
        options: Which labels are wanted.
    """

    def __init__(self, program: Program, options: LabelOptions) -> None:
        self._options = options
        self._remarks = program.remarks
        self._sources = program.table("python_label_sources", _U4, LABEL_SOURCE) if options else None
        self._readings: dict[int, _Reading] = {}
        self._missing: dict[int, Mapping[Variable, str]] = {}

    def poll(self, processes: Iterable[Process]) -> None:
        """Read those processes that are new, or due."""
        if self._sources is None:
            return
        now_ns = time.monotonic_ns()
        found = {process.runtime.pid: process for process in processes}
        for pid in self._readings.keys() - found.keys():
            del self._readings[pid]
            self._missing.pop(pid, None)
        for pid, process in found.items():
            reading = self._readings.get(pid)
            if reading is None or reading.number != process.number or reading.due_ns <= now_ns:
                self.enter(process)

    def enter(self, process: Process) -> None:
        """Read a process now, and again later."""
        if self._sources is None:
            return
        pid, known = process.runtime.pid, self._readings.get(process.runtime.pid)
        if known and known.number != process.number:
            known = None  # it is another program now
        pause_ns = min(2 * known.pause_ns, _LONGEST_PAUSE_NS) if known else _FIRST_PAUSE_NS
        self._readings[pid] = _Reading(process.number, time.monotonic_ns() + pause_ns, pause_ns)
        self._read(process.runtime)
        if not known:
            self._tell(self._missing.get(pid, {}))

    def _tell(self, missing: Mapping[Variable, str]) -> None:
        """Say at once which variables are not there, each once."""
        told = (f"no label of {one} yet: {why}" for one, why in missing.items())
        self._remarks += [text for text in told if text not in self._remarks]

    def _read(self, runtime: Runtime) -> None:
        with suppress(UnreadableError, PprofpyError, BlockedError):
            places = bounded(f"process {runtime.pid}", lambda: self._places(runtime))
            self._missing[runtime.pid] = places.missing
            if self._sources and (places.tasks or places.variables):
                self._sources.put(runtime.pid, self._entry(runtime, places))

    def _places(self, runtime: Runtime) -> LabelPlaces:
        reader = runtime.snapshot_reader(_READING_S)
        return find_places(runtime, reader, Dicts.of(runtime, reader), self._options)

    def _entry(self, runtime: Runtime, places: LabelPlaces) -> Any:
        """The kernel's entry for a process."""
        entry, tasks = np.zeros((), LABEL_SOURCE), places.tasks
        if tasks:
            entry["current_tasks"], entry["thread_task"] = tasks.dict_at, tasks.layout.thread_task
            entry["task_coroutine"], entry["task_name"] = tasks.layout.coroutine, tasks.layout.name
            entry["coroutine_name"] = tasks.layout.coroutine_name
            objects = runtime.known.objects
            entry["has_compact_keys"], entry["values_kind"] = objects.has_compact_keys, _VALUES[objects.attributes]
            for name in _AWAITING:
                entry[name] = getattr(tasks.layout, name)
        entry["thread_context"], entry["variable_default"] = places.context, VARIABLE_DEFAULT
        for number, wanted in enumerate(self._options.variables):
            if variable := places.variables.get(wanted):
                entry["variables"][number], entry["hashes"][number] = variable.address, variable.hash
        return entry

    def problems(self) -> tuple[str, ...]:
        """Which variables were found in no process, and why, in words."""
        return tuple(
            f"{one}: {next(iter(self._missing.values()))[one]}"
            for one in self._options.variables
            if self._missing and all(one in missing for missing in self._missing.values())
        )
