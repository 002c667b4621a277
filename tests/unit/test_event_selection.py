"""What -e means."""

from __future__ import annotations

import pytest

from pprofpy.errors import UsageError
from pprofpy.events.selection import matching
from pprofpy.events.syscalls import SYSCALLS

TRACEPOINTS = [
    "sched:sched_switch",
    "sched:sched_wakeup",
    "block:block_bio_queue",
    "rseq:rseq_update",
    "lock:contention_begin",
]


def test_without_names_all_system_calls_are_meant() -> None:
    assert matching([], TRACEPOINTS) == {call.name for call in SYSCALLS.values()}


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["sched:sched_switch,lock:contention_begin"], {"sched:sched_switch", "lock:contention_begin"}),
        (["sched:*"], {"sched:sched_switch", "sched:sched_wakeup"}),
        (["sched"], {"sched:sched_switch", "sched:sched_wakeup"}),
        (["sched_switch"], {"sched:sched_switch"}),
        (["read", "write, openat"], {"read", "write", "openat"}),
        (["newfstat"], {"fstat"}),
        (["epoll_*"], {name for name in (call.name for call in SYSCALLS.values()) if name.startswith("epoll_")}),
        (["rseq"], {"rseq"}),
        (["*:*,!sched:*"], {"block:block_bio_queue", "rseq:rseq_update", "lock:contention_begin"}),
    ],
)
def test_names_groups_and_wildcards(words: list[str], meant: set[str]) -> None:
    assert matching(words, TRACEPOINTS) == meant


def test_an_exclamation_mark_takes_away_from_all_calls() -> None:
    assert matching(["!futex"], TRACEPOINTS) == {call.name for call in SYSCALLS.values()} - {"futex"}


def test_no_syscalls_keeps_tracepoints_only() -> None:
    assert matching(["*:*,read"], TRACEPOINTS, with_syscalls=False) == set(TRACEPOINTS)


@pytest.mark.parametrize(
    ("word", "suggested"),
    [("sched:sched_swich", "sched:sched_switch"), ("opnat", "openat"), ("sched_wakeupp", "sched:sched_wakeup"),
     ("blocks:*", "block:*")],
)  # fmt: skip
def test_the_nearest_names_are_suggested(word: str, suggested: str) -> None:
    with pytest.raises(UsageError) as caught:
        matching([word], TRACEPOINTS)

    assert repr(word) in caught.value.message
    assert suggested in caught.value.hint


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(UsageError):
        matching(["read,!read"], TRACEPOINTS)
