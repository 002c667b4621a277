"""What py-spy writes of a target that may have misled it."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pprofpy.collectors.pyspy.convert import convert
from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.errors import ImplausibleTargetError
from pprofpy.target import open_target

TARGET = open_target(os.getpid())
OPTIONS = CpuOptions(subprocesses=True, native=True)


def document(*frames: Any, samples: Any = ([0, 1],)) -> dict[str, Any]:
    return {"shared": {"frames": list(frames)}, "profiles": [{"samples": list(samples)}]}


def frame(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "file": None, "line": None, **more}


def test_a_stack_has_its_thread_and_process_as_labels() -> None:
    frames = frame("process 12:python x"), frame("thread (34): worker"), frame("work", file="/x/y.py", line=5)

    (sample,) = convert(document(*frames, samples=[[0, 1, 2]] * 3), OPTIONS, TARGET, {}).samples()

    assert sample.values[0] == 3
    assert {(label.key, label.value) for label in sample.labels} >= {("thread", "worker"), ("tid", 34), ("pid", 12)}


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"shared": 1, "profiles": []},
        document(frame("thread (1)"), samples=[[0, 1]]),
        document(frame("thread (1)"), samples=[[-1]]),
        document(frame("thread (1)"), samples=[["0"]]),
        document(frame("thread (1)"), samples=[[]]),
        document(frame("thread (1)"), samples=[5]),
        document(frame("process 1:x"), samples=[[0]]),
        document(frame("work"), samples=[[0]]),
        document({"file": "x"}, samples=[[0]]),
        document({"name": 7, "file": "x", "line": 1}, samples=[[0]]),
        document(frame("thread (1)"), frame("f", line="7")),
    ],
)
def test_a_document_that_makes_no_sense_is_an_error_of_ours(forged: dict[str, Any]) -> None:
    with pytest.raises(ImplausibleTargetError, match="makes no sense"):
        convert(forged, OPTIONS, TARGET, {})


@pytest.mark.parametrize("name", ["thread (²)", "thread (99999999999999999999)", "thread (x): ²"])
@pytest.mark.parametrize("line", [-1, 2**9_000, 2**31])
def test_numbers_beyond_all_bounds_are_none(name: str, line: int) -> None:
    profile = convert(document(frame(name), frame("f", file="/x.py", line=line)), OPTIONS, TARGET, {})

    lines = [line.line for location in profile.locations for line in location.lines]
    assert all(0 <= one < 2**31 for one in lines)


@given(
    names=st.lists(
        st.text(max_size=8) | st.from_regex(r"(process|thread) \(?\w{0,4}\)?:? ?.?", fullmatch=True),
        min_size=1,
        max_size=4,
    ),
    file=st.none() | st.text(max_size=9),
    line=st.none() | st.integers(),
    indices=st.lists(st.integers(-1, 4), max_size=5),
)
def test_any_names_and_numbers_give_a_profile_or_an_error_of_ours(
    names: list[str], file: str | None, line: int | None, indices: list[int]
) -> None:
    with suppress(ImplausibleTargetError):
        convert(
            document(*(frame(name, file=file, line=line) for name in names), samples=[indices]), OPTIONS, TARGET, {}
        )
