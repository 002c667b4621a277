"""What stacks can be labelled with, besides threads: asyncio tasks, and context variables of the program."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from pprofpy.errors import UsageError

MOST_VARIABLES = 4
"""PYTHON_MAX_VARIABLES in python_tables.h."""

_OURS = frozenset({"task", "thread", "tid", "pid", "state", "reason", "waker", "holder", "greenlet", "bytes"})
"""Labels that recordings have already."""

_VARIABLE = re.compile(r"(?:(?P<label>[\w.-]+)=)?(?P<module>\w+(?:\.\w+)*):(?P<name>\w+)")
_EXAMPLE = "for instance --label route=myapp.context:route_var"


@dataclass(frozen=True, slots=True)
class Variable:
    """A `contextvars.ContextVar` of the program.

    Attributes:
        label: What to call it.
        module, name: `import MODULE; MODULE.NAME` is the variable.
    """

    label: str
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> Variable:
        """Read `LABEL=MODULE:NAME`; without LABEL it is NAME.

        Raises:
            UsageError: It is something else, or recordings have such a label already.
        """
        found = _VARIABLE.fullmatch(text)
        if not found:
            raise UsageError(f"--label {text} is not LABEL=MODULE:VARIABLE", _EXAMPLE)
        label = found["label"] or found["name"]
        if label in _OURS:
            raise UsageError(f"--label {label}=... is a label that recordings have already", "choose another name")
        return cls(label, found["module"], found["name"])


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Which labels are wanted.

    Attributes:
        tasks: The asyncio task, as `task`.
        variables: Context variables.
        awaiting: Add the stacks of the tasks that await the task.
    """

    tasks: bool = False
    variables: tuple[Variable, ...] = ()
    awaiting: bool = False

    def check_native(self) -> None:
        """Refuse what cannot be asked for together with native functions.

        Raises:
            UsageError: Tasks that await others have no place on the thread's stack.
        """
        if self.awaiting:
            raise UsageError(
                "--native and --tasks exclude each other", "leave one of them out; --label works with both"
            )

    @classmethod
    def of(cls, texts: Iterable[str], *, awaiting: bool = False) -> LabelOptions:
        """The task, and what --label says; and what --tasks does.

        Raises:
            UsageError: There are too many, two have one name, or one makes no sense.
        """
        variables = tuple(map(Variable.parse, texts))
        if len(variables) > MOST_VARIABLES:
            raise UsageError(f"{len(variables)} labels are more than the {MOST_VARIABLES} that the kernel can read")
        if len({one.label for one in variables}) < len(variables):
            raise UsageError("two labels have the same name", _EXAMPLE)
        return cls(tasks=True, variables=variables, awaiting=awaiting)

    @property
    def shown(self) -> str:
        """The labels to show tables of, with commas between them: all that the user has asked for."""
        return ",".join((*(["task"] if self.awaiting else []), *(one.label for one in self.variables)))

    def __bool__(self) -> bool:
        return self.tasks or bool(self.variables)

    def constants(self) -> dict[str, int]:
        """What python.h is told."""
        return {
            "PYTHON_TASKS": int(self.tasks),
            "PYTHON_AWAITING": int(self.awaiting),
            "PYTHON_VARIABLES": len(self.variables),
        }

    def sizes(self) -> dict[str, int]:
        """The sizes of the maps that are for labels alone."""
        return {} if self else {"python_label_sources": 0, "python_labels_seen": 0}


NO_LABELS = LabelOptions()
TASKS_ONLY = LabelOptions(tasks=True)
"""What recorders label with unless they are told."""
