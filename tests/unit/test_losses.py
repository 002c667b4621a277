"""Losses are numbers with names; reports have words for each name that a recorder uses."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

import pprofpy
from pprofpy.collectors import gil
from pprofpy.collectors import off_cpu as offcpu
from pprofpy.collectors import sched_latency as sched
from pprofpy.collectors import trace as events
from pprofpy.collectors.pystacks import missed
from pprofpy.collectors.sampling import cpu
from pprofpy.collectors.unwind import copies as nativestacks
from pprofpy.formats import document
from pprofpy.model.profile import Collection
from pprofpy.reports.losses import WORDS, lines, sentences

PROBES = Path(pprofpy.__file__).parent / "collectors" / "probes"
NAMES = {
    "sched_latency.bpf.c": sched._LOST,
    "off_cpu.bpf.c": offcpu._LOST,
    "gil.bpf.c": gil._LOST,
    "trace.bpf.c": events._LOST,
    "cpu.bpf.c": cpu._LOST,
    "python.h": missed._MISSED,
}


@pytest.mark.parametrize("source", NAMES)
def test_every_loss_has_words(source: str) -> None:
    assert set(NAMES[source]) <= set(WORDS)


def test_so_have_those_of_native_stacks_and_of_all_programs() -> None:
    names = {"missed_events", "events_full", "python_unnamed"}
    names |= {"python_undecoded", "native_undecoded", "python_unlined"}

    assert names | set(nativestacks._BROKEN_OFF.values()) <= set(WORDS)


def test_words_tell_the_number_once() -> None:
    assert [name for name, words in WORDS.items() if words.count("{}") != 1] == []


@pytest.mark.parametrize("name", WORDS)
def test_one_is_told_as_one_and_more_as_more(name: str) -> None:
    (one,), (more,) = lines(Collection(losses={name: 1})), lines(Collection(losses={name: 1234}))

    assert "|" not in one + more
    assert one.replace("1", "1,234") != more


def test_a_sentence_agrees_with_its_number() -> None:
    losses = {"python_threads_hidden": 1, "trace_events": 2}

    assert lines(Collection(losses=losses)) == [
        "1 thread is beyond a process's first 448: it counts as running no Python.",
        "lost: 2 events that the trace lacks: they came faster than events could be read",
    ]


def test_notes_come_first_and_a_name_of_a_newer_version_is_shown_as_it_is() -> None:
    collection = Collection(losses={"syscalls": 1234, "brand_new": 2, "trace_events": 0}, notes=("wall-clock time.",))

    assert lines(collection) == ["wall-clock time.", "lost: 1,234 system calls", "lost: 2 brand_new"]
    assert sentences(collection)[0] == "Wall-clock time."


def test_windows_add_up_and_a_window_is_what_came_since_the_last_one() -> None:
    first = Collection(asked=10, got=9, dropped=1, losses={"syscalls": 1}, notes=("a",))
    both = Collection(asked=25, got=20, dropped=4, losses={"syscalls": 3, "new_threads": 1}, notes=("a",))

    second = both.since(first)

    assert (second.asked, second.got, second.dropped, second.late) == (15, 11, 3, -1)
    assert second.losses == {"syscalls": 2, "new_threads": 1}
    assert first.merge(second) == both


def test_it_comes_back_from_a_file_as_it_was() -> None:
    collection = Collection("engine", "target", 1, 2, 3, 4, 5, 6, {"syscalls": 7}, ("note",))

    assert document.collection(json.loads(json.dumps(asdict(collection)))) == collection


@pytest.mark.parametrize(
    "saved",
    [
        None,
        [],
        {"asked": "1"},
        {"got": True},
        {"losses": [1]},
        {"losses": {"a": "b"}},
        {"notes": 3},
        {"asked": 1 << 70},
    ],
)
def test_what_does_not_fit_is_left_out(saved: object) -> None:
    assert document.collection(saved) == Collection()
