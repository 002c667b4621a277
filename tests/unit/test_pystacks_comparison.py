"""A wrong walk is noticed, and a right one of a program that changes quickly is not held for wrong."""

from __future__ import annotations

from pprofpy.collectors.pystacks.comparison import Comparison

THREAD, MAIN, IMPORT, OTHER = 0x1000, 1, 2, 3
ENOUGH = 30


def test_the_same_root_settles_it() -> None:
    comparison = Comparison()

    assert not comparison.differs(1, THREAD, [7, 8, MAIN], [9, MAIN])
    assert comparison.is_settled


def test_a_root_that_stays_another_is_a_wrong_walk() -> None:
    comparison = Comparison()

    found = [comparison.differs(poll, THREAD, [7, OTHER], [9, MAIN]) for poll in range(1, ENOUGH)]

    assert not found[0]
    assert found[-1]
    assert not comparison.is_settled


def test_stacks_of_a_beginning_that_come_late_are_no_wrong_walk() -> None:
    comparison = Comparison()

    found = [comparison.differs(1, THREAD, [7, IMPORT], [9, MAIN]) for _ in range(ENOUGH)]
    settling = comparison.differs(2, THREAD, [7, MAIN], [9, MAIN])

    assert not any(found)
    assert not settling
    assert comparison.is_settled


def test_neither_are_those_of_a_thread_whose_roots_change() -> None:
    comparison = Comparison()

    assert not any(comparison.differs(poll, THREAD, [7, poll], [9, poll + 1]) for poll in range(1, ENOUGH))


def test_polls_that_bring_nothing_do_not_hide_a_wrong_walk() -> None:
    comparison = Comparison()

    assert any(comparison.differs(poll, THREAD, [7, OTHER], [9, MAIN]) for poll in range(1, 10 * ENOUGH, 10))


def test_a_thread_that_has_ended_says_nothing() -> None:
    comparison = Comparison()

    assert not any(comparison.differs(poll, THREAD, [7, OTHER], []) for poll in range(1, ENOUGH))
