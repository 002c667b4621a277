"""Numbers for stacks: one for all that read the same."""

from __future__ import annotations

from pprofpy.collectors.pystacks.numbered import Numbered
from pprofpy.model.profile import Frame, Function, Stack


def test_what_reads_the_same_has_one_number_and_is_kept_once() -> None:
    stacks: Numbered[Stack] = Numbered(())

    first = stacks.number((Frame(Function("work"), 3), Frame(Function("main"), 9)))
    again = stacks.number((Frame(Function("work"), 3), Frame(Function("main"), 9)))
    other = stacks.number((Frame(Function("work"), 4), Frame(Function("main"), 9)))

    assert first == again != other
    assert stacks[first][0] == Frame(Function("work"), 3)
    assert stacks[other][0].line == 4


def test_no_stack_is_number_0() -> None:
    stacks: Numbered[Stack] = Numbered(())

    assert stacks.number(()) == 0
    assert stacks[0] == ()
    assert stacks.number((Frame(Function("work")),)) > 0


def test_what_was_not_asked_for_between_two_calls_is_forgotten() -> None:
    stacks: Numbered[tuple[str, ...]] = Numbered(())
    first, again, kept = (stacks.number((name,)) for name in ("once", "again", "kept"))

    for _ in range(2):
        assert stacks[first] == ("once",)
        stacks.forget([kept])
        assert stacks.number(("again",)) == again

    assert first not in stacks
    assert stacks[again] == ("again",)
    assert stacks[kept] == ("kept",)
    assert stacks[0] == ()
    assert stacks.number(("once",)) not in (first, again, kept)
    assert len(stacks) == 4
