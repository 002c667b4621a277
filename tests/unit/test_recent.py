"""What is asked for stays; what nobody asks for goes, also where there is no end of what is new."""

from __future__ import annotations

import math

import pytest

from pprofpy import recent
from pprofpy.recent import Recent
from pprofpy.units import NS_PER_S


class Clock:
    """Stands in for `time`."""

    def __init__(self) -> None:
        self.now_s = 1000

    def monotonic_ns(self) -> int:
        return self.now_s * NS_PER_S


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(recent, "time", made)
    return made


def test_what_is_asked_for_stays(clock: Clock) -> None:
    known: Recent[str, int] = Recent(100)
    known["asked for"] = known["not asked for"] = 0

    for minute in range(5):
        clock.now_s += 61
        known[f"new {minute}"] = minute
        assert "asked for" in known

    assert known.get("asked for") == 0
    assert known.get("not asked for") is None
    assert len(known) == 3


def test_it_stays_for_a_minute_at_least(clock: Clock) -> None:
    known: Recent[str, int] = Recent(100)
    known["one"] = 1

    clock.now_s += 59
    known["other"] = 2

    assert known.get("one") == 1


def test_there_are_never_more_than_twice_as_many() -> None:
    known: Recent[int, int] = Recent(10)

    for number in range(1000):
        known[number] = number
        assert len(known) <= 20
        assert known.get(number) == number


def test_a_new_value_takes_the_place_of_an_older_one(clock: Clock) -> None:
    known: Recent[str, int] = Recent(100)
    known["one"] = 1
    clock.now_s += 61
    known["other"] = 0

    known["one"] = 2

    assert known.get("one") == 2
    assert len(known) == 2


def test_without_an_end_of_time_only_number_counts(clock: Clock) -> None:
    known: Recent[int, int] = Recent(10, seconds=math.inf)

    for number in range(10):
        known[number] = number
        clock.now_s += 1000

    assert all(number in known for number in range(10))
    for number in range(100, 130):
        known[number] = number
    assert 0 not in known
