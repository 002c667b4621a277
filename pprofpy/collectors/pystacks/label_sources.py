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

from pprofpy.collectors.cpython.contexts import (
    THREAD_CONTEXT,
    VARIABLE_DEFAULT,
    NoVariableError,
    VariableAt,
    find_variable,
    has_contexts,
)
from pprofpy.collectors.cpython.dicts import Dicts, modules_of
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.tasks import CurrentTasks, current_tasks
from pprofpy.collectors.cpython.versions import Attributes
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.kernel.program import Program
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
        self._missing: dict[int, dict[str, str]] = {}

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
        is_new = known is None or known.number != process.number
        pause_ns = _FIRST_PAUSE_NS if is_new or known is None else min(2 * known.pause_ns, _LONGEST_PAUSE_NS)
        self._readings[pid] = _Reading(process.number, time.monotonic_ns() + pause_ns, pause_ns)
        self._read(process.runtime)
        if is_new:
            self._tell(self._missing.get(pid, {}))

    def _tell(self, missing: Mapping[str, str]) -> None:
        """Say at once which variables are not there, each once."""
        told = (f"no label of {one} yet: {why}" for one, why in missing.items())
        self._remarks += [text for text in told if text not in self._remarks]

    def _read(self, runtime: Runtime) -> None:
        with suppress(UnreadableError, PprofpyError, BlockedError):
            source = bounded(f"process {runtime.pid}", lambda: self._source(runtime))
            if self._sources and source is not None:
                self._sources.put(runtime.pid, source)

    def _source(self, runtime: Runtime) -> Any:
        """The kernel's entry for a process; None if nothing of it is labelled."""
        reader = runtime.snapshot_reader(_READING_S)
        dicts = Dicts.of(runtime, reader)
        main = reader.main_interpreter(runtime.address)
        modules = modules_of(runtime, dicts, main)
        tasks = current_tasks(runtime, dicts, modules) if self._options.tasks else None
        variables = self._variables(runtime, reader, dicts, modules)
        if not tasks and not any(variables):
            return None
        return _entry(runtime, tasks, variables)

    def _variables(
        self, runtime: Runtime, reader: ObjectReader, dicts: Dicts, modules: dict[str, int]
    ) -> list[VariableAt | None]:
        """Those that are wanted, in order; None stands for one that is not there."""
        found: list[VariableAt | None] = []
        missing = self._missing[runtime.pid] = {}
        if self._options.variables and not has_contexts(runtime, reader, dicts):
            missing.update({str(one): "contexts are not where they should be" for one in self._options.variables})
            return found
        for one in self._options.variables:
            try:
                found.append(find_variable(dicts, modules, one.module, one.name))
            except NoVariableError as error:
                found.append(None)
                missing[str(one)] = str(error)
        return found

    def problems(self) -> tuple[str, ...]:
        """Which variables were found in no process, and why, in words."""
        wanted = [str(one) for one in self._options.variables]
        return tuple(
            f"{one}: {next(iter(self._missing.values()))[one]}"
            for one in wanted
            if self._missing and all(one in missing for missing in self._missing.values())
        )


def _entry(runtime: Runtime, tasks: CurrentTasks | None, variables: list[VariableAt | None]) -> Any:
    entry = np.zeros((), LABEL_SOURCE)
    if tasks:
        entry["current_tasks"], entry["thread_task"] = tasks.dict_at, tasks.layout.thread_task
        entry["task_coroutine"], entry["task_name"] = tasks.layout.coroutine, tasks.layout.name
        entry["coroutine_name"] = tasks.layout.coroutine_name
        objects = runtime.known.objects
        entry["has_compact_keys"], entry["values_kind"] = objects.has_compact_keys, _VALUES[objects.attributes]
        for name in _AWAITING:
            entry[name] = getattr(tasks.layout, name)
    entry["thread_context"], entry["variable_default"] = THREAD_CONTEXT.get(runtime.version, 0), VARIABLE_DEFAULT
    for place, variable in enumerate(variables):
        if variable:
            entry["variables"][place], entry["hashes"][place] = variable.address, variable.hash
    return entry
