"""The labels of blocked threads, read from outside: what the kernel reads of those that run (`python_labels.h`)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from pprofpy.collectors.cpython.blocked_stacks import BlockedStack
from pprofpy.collectors.cpython.contexts import value_in_thread
from pprofpy.collectors.cpython.dicts import INT_FLAG, STR_FLAG, Dicts
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.tasks import task_name, task_of_thread
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.pystacks.label_places import find_places
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
        self._places = find_places(runtime, reader, self._dicts, wanted)

    def of(self, thread_state: int) -> list[Label]:
        found, tasks = [], self._places.tasks
        if tasks and (task := task_of_thread(self._reader, self._dicts, tasks, thread_state)):
            found.append(Label("task", task_name(self._reader, tasks, task)))
        for wanted, variable in self._places.variables.items():
            value = value_in_thread(self._reader, self._dicts, variable, thread_state + self._places.context)
            if value:
                found.append(Label(wanted.label, self._text(value)))
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
