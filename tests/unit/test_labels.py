"""Labels of stacks: what can be asked for, and what the kernel sends."""

from __future__ import annotations

import struct
from itertools import islice
from typing import Any

import numpy as np
import pytest

from pprofpy.collectors.cpython.versions import VERSIONS
from pprofpy.collectors.kernel.label_options import LabelOptions, Variable
from pprofpy.collectors.pystacks import labels as labels_module
from pprofpy.collectors.pystacks.labels import LABEL_LAYOUTS, OTHERS, Labels
from pprofpy.collectors.pystacks.records import AWAITED_BY, PYTHON_LAYOUTS, frame_key, stack_of
from pprofpy.errors import ProfileFormatError, UsageError
from pprofpy.model import label_text
from pprofpy.model.gil import GilRecord, Wait
from pprofpy.model.profile import Frame, Function, Label

STR, INT, NONE, OTHER = 1, 2, 3, 4
OPTIONS = LabelOptions.of(["route=app.context:route_var", "app:user"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("route=app.context:route_var", Variable("route", "app.context", "route_var")),
        ("app:user", Variable("user", "app", "user")),
        ("__main__:x", Variable("x", "__main__", "x")),
    ],
)
def test_a_variable_is_named_by_module_and_name(text: str, expected: Variable) -> None:
    assert Variable.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "route", "route=app", "app:", ":x", "a b:c", "thread=app:x", "task=app:x", "app:pid"]
)
def test_what_names_no_variable_or_takes_a_label_of_ours_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Variable.parse(text)


def test_more_labels_than_the_kernel_reads_and_labels_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="more than the 4"):
        LabelOptions.of([f"app:v{number}" for number in range(5)])
    with pytest.raises(UsageError, match="same name"):
        LabelOptions.of(["x=app:a", "x=app:b"])


def value(kind: int = 0, text: bytes = b"", width: int = 1, size: int | None = None) -> tuple[int, int, int, bytes]:
    return kind, len(text) if size is None else size, width, text


def record(number: int, *values: tuple[int, int, int, bytes]) -> bytes:
    """As python_labels.h sends it."""
    made: Any = np.zeros((), LABEL_LAYOUTS["python_labels"])
    made["kind"], made["tgid"], made["id"] = 5, 42, number
    for to, (kind, size, width, text) in zip(made["values"], values, strict=False):
        to["kind"], to["bytes"], to["width"] = kind, size, width
        to["text"] = np.frombuffer(text[:128].ljust(128, b"\0"), "u8")
    return bytes(made.tobytes())


def digits(size: int, *parts: int) -> bytes:
    return struct.pack("<QIIII", size & (1 << 64) - 1, *parts, *[0] * (4 - len(parts)))


def taken(*values: tuple[int, int, int, bytes], version: tuple[int, int] = (3, 12)) -> dict[str, Any]:
    labels = Labels(OPTIONS)
    labels.take(record(7, *values), VERSIONS[version].objects)
    return {label.key: label.value for label in labels.of(7)}


def test_a_task_is_called_by_its_name_or_else_by_its_coroutine() -> None:
    assert taken(value(STR, b"fetch-7"), value(STR, b"fetch")) == {"task": "fetch-7"}
    assert taken(value(), value(STR, b"fetch")) == {"task": "fetch"}
    assert taken(value(), value(), value(STR, b"/x")) == {"route": "/x"}


@pytest.mark.parametrize(
    ("sent", "version", "expected"),
    [
        (value(STR, b"/checkout"), (3, 12), "/checkout"),
        (value(STR, "größe".encode("utf-16-le"), 2), (3, 12), "größe"),
        (value(STR, b"x" * 128, 1, 500), (3, 12), "x" * 128 + "…"),
        (value(STR, b""), (3, 12), ""),
        (value(INT, digits(1 << 3, 7)), (3, 12), "7"),
        (value(INT, digits(1 << 3 | 2, 7)), (3, 14), "-7"),
        (value(INT, digits(1)), (3, 12), "0"),
        (value(INT, digits(2, 1, 1)), (3, 8), str(1 + (1 << 30))),
        (value(INT, digits(-1, 9)), (3, 11), "-9"),
        (value(INT, digits(9 << 3, 1)), (3, 13), "<large int>"),
        (value(NONE, b"NoneType"), (3, 12), "None"),
        (value(OTHER, b"Decimal"), (3, 12), "<Decimal>"),
    ],
)
def test_values_are_shown_as_text(sent: tuple[int, int, int, bytes], version: tuple[int, int], expected: str) -> None:
    assert taken(value(), value(), sent, version=version) == {"route": expected}


def test_a_program_that_names_each_request_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "_MOST_VALUES", 10)
    labels = Labels(OPTIONS)
    for number in range(1, 100):
        text = value(STR, b"request-%d" % number)
        labels.take(record(number, text, value(STR, b"handle"), text), VERSIONS[3, 12].objects)

    assert labels.of(10) == (Label("task", "request-10"), Label("route", "request-10"))
    assert labels.of(11) == (Label("task", "handle"), Label("route", OTHERS))
    assert [note.split(" has")[0] for note in labels.notes()] == ["The label route", "The label task"]


def test_labels_are_forgotten_in_the_second_turn() -> None:
    labels = Labels(OPTIONS)
    labels.take(record(1, value(STR, b"a")), VERSIONS[3, 12].objects)
    labels.forget()
    assert labels.of(1) == (Label("task", "a"),)
    labels.forget()
    assert labels.of(1) == ()
    assert labels.of(0) == ()


def test_tasks_that_await_are_put_between_the_task_and_the_event_loop() -> None:
    """Each comes root-first from the kernel, as coroutines lead from one to the next."""
    made: Any = np.zeros((), PYTHON_LAYOUTS["python_stack"])
    own, awaiting = [100, 101, 102, 103], [AWAITED_BY, 201, 200, AWAITED_BY, 300]
    for to, code in zip(made["frames"], [*own, *awaiting], strict=False):
        to["code"] = code
    made["frame_count"], made["thread_frames"], made["task_frames"] = 9, 4, 2

    def codes(first: int) -> list[int]:
        made["frame_first"] = first
        return [frame_key(key).code for key in stack_of(bytes(made.tobytes())).keys]

    assert codes(0) == [100, 101, AWAITED_BY, 200, 201, AWAITED_BY, 300, 102, 103]
    assert codes(1) == [101, AWAITED_BY, 200, 201, AWAITED_BY, 300, 102, 103]
    made["frame_count"] = 4  # there is nobody
    assert codes(0) == own


def test_labels_survive_as_text_and_recordings_from_before_have_none() -> None:
    labels = Label("route", "/ü\n"), Label("task", "x")
    assert label_text.from_text(label_text.to_text(labels)) == labels
    assert label_text.from_text(label_text.to_text(())) == ()
    for damaged in ("[1]", "{", '{"a": [1]}'):
        with pytest.raises(ProfileFormatError):
            label_text.from_text(damaged)

    work = (Frame(Function("app.work"), 3),)
    record = GilRecord(waits=(Wait(1, work, 2, 3, 4, label_text.to_text(labels)),))
    made = record.to_recording({})
    assert GilRecord.from_recording(made).waits == record.waits
    del made.tables["waits"].columns["labels"]
    assert [wait.labels for wait in islice(GilRecord.from_recording(made).waits, 1)] == [""]
    del made.tables["waits"].columns["count"]
    with pytest.raises(ProfileFormatError, match="count"):
        GilRecord.from_recording(made)
