"""The labels of stacks, as the kernel sends them (`python_labels.h`): the task's name, values of context variables."""

from __future__ import annotations

import struct
from collections import defaultdict
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from pprofpy.collectors.cpython.dicts import int_of
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.objects import decode_text
from pprofpy.collectors.cpython.versions import Objects
from pprofpy.collectors.kernel.label_options import MOST_VARIABLES, LabelOptions
from pprofpy.model.profile import Label, LabelSet

_TEXT_BYTES = 128
_TASK_NAME, _TASK_COROUTINE, _FIRST_VARIABLE = 0, 1, 2
_VALUE = np.dtype([("kind", "u4"), ("bytes", "u4"), ("width", "u4"), ("unused", "u4"), ("text", "u8", (16,))])
_LABELS = np.dtype(
    [("kind", "u4"), ("tgid", "u4"), ("id", "u8"), ("values", _VALUE, (_FIRST_VARIABLE + MOST_VARIABLES,))]
)
LABEL_SOURCE = np.dtype(
    [
        ("current_tasks", "u8"),
        ("variables", "u8", (MOST_VARIABLES,)),
        ("hashes", "u4", (MOST_VARIABLES,)),
        ("thread_task", "u2"),
        ("thread_context", "u2"),
        ("task_coroutine", "u2"),
        ("task_name", "u2"),
        ("coroutine_name", "u2"),
        ("has_compact_keys", "u2"),
        ("variable_default", "u2"),
        ("task_awaited_by", "u2"),
        ("task_awaited_by_is_set", "u2"),
        ("function_closure", "u2"),
        ("values_kind", "u2"),
        ("frame_stack", "u2"),
        ("frame_depth", "u2"),
        ("frame_values", "u2"),
        ("awaited_before", "u2"),
        ("unused", "u2"),
    ]
)
LABEL_LAYOUTS = {"python_value": _VALUE, "python_labels": _LABELS, "python_label_source": LABEL_SOURCE}
"""For the ProbeSource of a program that includes python.h."""

OTHERS = "[others]"
"""The value of a label that has had too many."""

LARGE_INT = "<large int>"

_MOST_VALUES = 2_000
"""So many values of a label are told apart in one recording."""

_CUT_MARK = "…"
_HEAD, _VALUE_HEAD = struct.Struct("<IIQ"), struct.Struct("<IIII")


class _Kind(IntEnum):
    """What a value is; source: python_tables.h."""

    ABSENT = 0
    STR = 1
    INT = 2
    NONE = 3
    OTHER = 4


class _Value(NamedTuple):
    """A value as it was sent; `size` bytes, of which there may be fewer in `text`."""

    kind: int
    size: int
    width: int
    text: bytes


class Labels:
    """The labels that one loaded program has met, by their number.

    Args:
        options: Which are wanted.
    """

    def __init__(self, options: LabelOptions) -> None:
        self._options = options
        self._known: dict[int, LabelSet] = {0: ()}
        self._older: dict[int, LabelSet] = {}
        self._texts: defaultdict[str, set[str]] = defaultdict(set)
        self._crowded: set[str] = set()

    def take(self, record: bytes, forms: Objects) -> None:
        """Take in a record of the kernel's; `forms`: of the objects of its process's Python."""
        _, _, number = _HEAD.unpack_from(record)
        values = [_value_of(record, place) for place in range(_FIRST_VARIABLE + len(self._options.variables))]
        texts = [_text_of(value, forms) for value in values]
        labels = []
        if task := self._bounded("task", texts[_TASK_NAME], texts[_TASK_COROUTINE]) or texts[_TASK_COROUTINE]:
            labels.append(Label("task", task))
        for variable, text in zip(self._options.variables, texts[_FIRST_VARIABLE:], strict=True):
            if text is not None:
                labels.append(Label(variable.label, self._bounded(variable.label, text, OTHERS) or ""))
        self._known[number] = tuple(labels)

    def of(self, number: int) -> LabelSet:
        """Labels by their number; none for 0."""
        found = self._known.get(number)
        return found if found is not None else self._older.get(number, ())

    def forget(self) -> None:
        """Free the memory of labels; numbers from before the previous call become unknown."""
        self._older, self._known = self._known, {0: ()}

    def notes(self) -> tuple[str, ...]:
        """What a reader should know of labels that are not what was asked for."""
        return tuple(
            f"The label {label} has had more than {_MOST_VALUES:,} values: further ones are "
            + ("told by their coroutines." if label == "task" else f"{OTHERS}.")
            for label in sorted(self._crowded)
        )

    def _bounded(self, label: str, text: str | None, instead: str | None) -> str | None:
        """A text, unless there are too many of them: programs may name each request."""
        known = self._texts[label]
        if text is None or text in known:
            return text
        if len(known) >= _MOST_VALUES:
            self._crowded.add(label)
            return instead
        known.add(text)
        return text


def _value_of(record: bytes, place: int) -> _Value:
    start = _HEAD.size + place * _VALUE.itemsize
    kind, size, width, _ = _VALUE_HEAD.unpack_from(record, start)
    start += _VALUE_HEAD.size
    return _Value(kind, size, width, record[start : start + _TEXT_BYTES])


def _text_of(value: _Value, forms: Objects) -> str | None:
    """A value as text; None if there is none."""
    if value.kind == _Kind.STR:
        return decode_text(value.text[: value.size], value.width) + _CUT_MARK * (value.size > _TEXT_BYTES)
    if value.kind == _Kind.INT:
        return _int_text(value.text, forms)
    if value.kind == _Kind.NONE:
        return "None"
    if value.kind == _Kind.OTHER:
        return f"<{value.text[: value.size].decode('latin-1')}>"
    return None


def _int_text(text: bytes, forms: Objects) -> str:
    try:
        return str(int_of(text, forms))
    except UnreadableError:
        return LARGE_INT
