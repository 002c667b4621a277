"""The labels of blocked threads, read from outside: what the kernel reads of those that run (`python_labels.h`)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from pprofpy.collectors.cpython.blocked_stacks import BlockedStack
from pprofpy.collectors.cpython.contexts import (
    THREAD_CONTEXT,
    NoVariableError,
    find_variable,
    has_contexts,
    value_in_thread,
)
from pprofpy.collectors.cpython.dicts import INT_FLAG, STR_FLAG, Dicts, modules_of
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.tasks import current_tasks, task_name, task_of_thread
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.pystacks.labels import LARGE_INT
from pprofpy.model.profile import Label, LabelSet


def labels_from_outside(
    runtime: Runtime, wanted: LabelOptions, stacks: Mapping[int, BlockedStack]
) -> dict[int, LabelSet]:
    """The labels of blocked threads, as far as they can be read.

    Args:
        runtime: The interpreter of their process.
        wanted: Which labels.
        stacks: tid -> where it is blocked.

    Raises:
        TargetError: The process has ended.
        ImplausibleTargetError: There is more to read than can be.
    """
    found: dict[int, LabelSet] = {}
    if wanted and stacks:
        with suppress(UnreadableError):
            labels = _OutsideLabels(runtime, wanted)
            for tid, stack in stacks.items():
                with suppress(UnreadableError):
                    found[tid] = tuple(labels.of(stack.thread_state))
    return found


class _OutsideLabels:
    """Reads the labels of the threads of one process."""

    def __init__(self, runtime: Runtime, wanted: LabelOptions) -> None:
        self._reader = reader = runtime.snapshot_reader()
        self._dicts = Dicts.of(runtime, reader)
        main = reader.main_interpreter(runtime.address)
        modules = modules_of(runtime, self._dicts, main)
        self._tasks = current_tasks(runtime, self._dicts, modules) if wanted.tasks else None
        self._variables = {}
        self._context = THREAD_CONTEXT.get(runtime.version, 0)
        if wanted.variables and has_contexts(runtime, reader, self._dicts):
            for one in wanted.variables:
                with suppress(NoVariableError):
                    self._variables[one.label] = find_variable(self._dicts, modules, one.module, one.name)

    def of(self, thread_state: int) -> list[Label]:
        found = []
        if self._tasks and (task := task_of_thread(self._reader, self._dicts, self._tasks, thread_state)):
            found.append(Label("task", task_name(self._reader, self._tasks, task)))
        for label, variable in self._variables.items():
            value = value_in_thread(self._reader, self._dicts, variable, thread_state + self._context)
            if value:
                found.append(Label(label, self._text(value)))
        return found

    def _text(self, value: int) -> str:
        """A value as text; see `labels._text_of`."""
        flags, kind = self._dicts.type_flags(value), self._dicts.type_name(value)
        if flags & STR_FLAG:
            return self._reader.string(value)
        if flags & INT_FLAG:
            with suppress(UnreadableError):
                return str(self._dicts.integer(value))
            return LARGE_INT
        return "None" if kind == "NoneType" else f"<{kind}>"
