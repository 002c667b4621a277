"""Sums by thread: exact, and few even if threads come and go for ever."""

from __future__ import annotations

import os
import threading

import pytest

from pprofpy.session import sums
from pprofpy.session.sums import ThreadSums, Who


def test_threads_are_told_apart_as_long_as_they_are_few() -> None:
    times: ThreadSums[str] = ThreadSums()
    for tid in (1, 2, 1):
        times.add(Who(os.getpid(), tid, f"Thread-{tid}"), "sleep", (1, 100))
    times.make_room()

    assert dict(times.items()) == {
        (Who(os.getpid(), 1, "Thread-1"), "sleep"): [2, 200],
        (Who(os.getpid(), 2, "Thread-2"), "sleep"): [1, 100],
    }


def test_of_very_many_those_that_have_ended_are_summed_up_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "MANY", 100)
    times: ThreadSums[str] = ThreadSums(lambda waker, alive: waker if waker == "timer" else "Thread-* (*)")
    own = Who(os.getpid(), threading.get_native_id(), "MainThread")

    for number in range(1000):
        ended = 2**22 + number  # beyond all thread ids
        times.add(Who(os.getpid(), ended, f"Thread-{number} (serve)"), "timer", (1, 5))
        times.add(own, f"Thread-{number} ({ended})", (1, 7))
        times.make_room()

    assert len(times) < 110
    totals = [sum(column) for column in zip(*(values for _, values in times.items()), strict=True)]
    assert totals == [2000, 1000 * 5 + 1000 * 7]
    assert (Who(os.getpid(), 0, "Thread-* (serve)"), "timer") in dict(times.items())
    assert (own, "Thread-* (*)") in dict(times.items())
