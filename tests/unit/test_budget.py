"""What one task may spend on a target."""

from __future__ import annotations

import time

import pytest

from pprofpy.budget import Budget
from pprofpy.errors import ImplausibleTargetError


def test_steps_end() -> None:
    budget = Budget("a list", steps=5000)
    for _ in range(5000):
        budget.step()

    with pytest.raises(ImplausibleTargetError, match="a list: more entries"):
        budget.step()


def test_many_steps_at_once_count_as_many() -> None:
    with pytest.raises(ImplausibleTargetError):
        Budget("a list", steps=5000).step(5001)


def test_bytes_end_before_they_are_read() -> None:
    budget = Budget("a table", size=1000)
    budget.take(1000)

    with pytest.raises(ImplausibleTargetError, match="a table: more bytes"):
        budget.take(1)


def test_a_size_below_zero_gives_nothing_back() -> None:
    with pytest.raises(ImplausibleTargetError):
        Budget("a table").take(-1)


@pytest.mark.parametrize("spend", [Budget.step, lambda budget: budget.take(0)])
@pytest.mark.parametrize(("clock", "limit_s"), [("thread_time", 2.0), ("monotonic", 20.0)])
def test_time_ends(clock: str, limit_s: float, spend: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(spend)
    now = [0.0]
    monkeypatch.setattr(time, clock, lambda: now[0])
    budget = Budget("a list", seconds=2)
    for _ in range(10_000):
        spend(budget)
    now[0] = limit_s + 0.1

    def spend_on() -> None:
        for _ in range(2000):  # the clock is not read every time
            spend(budget)

    with pytest.raises(ImplausibleTargetError, match="a list: more time"):
        spend_on()
