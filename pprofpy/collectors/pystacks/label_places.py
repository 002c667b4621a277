"""Where the labels of a process's stacks are in its memory: what the kernel is told, and what is read from outside."""

from __future__ import annotations

from dataclasses import dataclass, field

from pprofpy.collectors.cpython.contexts import (
    THREAD_CONTEXT,
    NoVariableError,
    VariableAt,
    find_variable,
    has_contexts,
)
from pprofpy.collectors.cpython.dicts import Dicts, modules_of
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.tasks import CurrentTasks, current_tasks
from pprofpy.collectors.kernel.label_options import LabelOptions, Variable


@dataclass(frozen=True, slots=True)
class LabelPlaces:
    """Where things are.

    Attributes:
        tasks: The asyncio tasks; None: they are not wanted, or there are none.
        context: In PyThreadState, its context; 0 if that is not known.
        variables: Those of the variables that are there.
        missing: Why the others are not, in words.
    """

    tasks: CurrentTasks | None
    context: int
    variables: dict[Variable, VariableAt] = field(default_factory=dict)
    missing: dict[Variable, str] = field(default_factory=dict)


def find_places(runtime: Runtime, reader: ObjectReader, dicts: Dicts, wanted: LabelOptions) -> LabelPlaces:
    """Find the places of the labels that are wanted.

    Args:
        runtime: The interpreter of the process.
        reader, dicts: Read it.
        wanted: Which labels.

    Raises:
        UnreadableError: It has changed while it was read, or has only just begun.
    """
    modules = modules_of(runtime, dicts, reader.main_interpreter(runtime.address))
    tasks = current_tasks(runtime, dicts, modules) if wanted.tasks else None
    found = LabelPlaces(tasks, THREAD_CONTEXT.get(runtime.version, 0))
    if wanted.variables and not has_contexts(runtime, reader, dicts):
        found.missing.update(dict.fromkeys(wanted.variables, "contexts are not where they should be"))
        return found
    for one in wanted.variables:
        try:
            found.variables[one] = find_variable(dicts, modules, one.module, one.name)
        except NoVariableError as error:
            found.missing[one] = str(error)
    return found
