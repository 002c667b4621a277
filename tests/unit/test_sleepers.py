"""Threads that did not run: who is one, and that folding them changes no sum."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pprofpy.cli import confinement
from pprofpy.cli.main import run
from pprofpy.formats import recording
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Label, LabelSet, Profile, ValueType
from pprofpy.model.recording import Option, Recording
from pprofpy.model.sleepers import find_sleepers, fold_sleepers
from pprofpy.model.waits import OFF_CPU, OFF_CPU_TYPES, STILL_WAITING
from pprofpy.reports import off_cpu
from tests.stacks import stack

SECOND = 10**9
WALL_TYPES = (ValueType("samples", "count"), ValueType("wall", "nanoseconds"))
GET, SERVE, COMPUTE = stack("run:1 > get:7"), stack("run:1 > serve:9"), stack("run:1 > compute:3")


def labels(tid: int, name: str = "", **facts: str) -> LabelSet:
    who = Label("thread", name or f"job-{tid}"), Label("tid", tid), Label("pid", 5)
    return *who, *(Label(key, value) for key, value in facts.items())


def waited(tid: int, time_ns: int, waker: str = STILL_WAITING, state: str = "sleeping") -> LabelSet:
    return labels(tid, state=state, reason="lock", waker=waker)


def off_cpu_of(*threads: tuple[LabelSet, int]) -> Profile:
    builder = ProfileBuilder(OFF_CPU_TYPES)
    for facts, time_ns in threads:
        builder.add(GET, (1, time_ns), facts)
    return replace(builder.build(), duration_ns=10 * SECOND)


ASLEEP = [(waited(tid, 10 * SECOND), 10 * SECOND) for tid in range(10, 26)]


def wall_of(windows: int = 2) -> Profile:
    """16 threads that never run, one that only computes, one that wakes up now and then."""
    builder = ProfileBuilder(WALL_TYPES)
    for _ in range(windows):
        for tid in range(10, 26):
            builder.add(GET, (1, 8 * SECOND), labels(tid, state=OFF_CPU))
        builder.add(COMPUTE, (800, 8 * SECOND), labels(1, "MainThread"))
        builder.add(SERVE, (90, 7 * SECOND), labels(2, "server", state=OFF_CPU))
        builder.add(SERVE, (100, SECOND), labels(2, "server"))
    return replace(builder.build(), duration_ns=8 * windows * SECOND)


def test_only_a_wait_from_the_beginning_to_the_end_is_sleep() -> None:
    others = [
        (waited(1, SECOND), 9 * SECOND),  # began later
        (waited(2, SECOND, waker="python (1)"), 10 * SECOND),  # was woken at the end
        (waited(4, SECOND), 6 * SECOND),  # woke up once
        (waited(4, SECOND, waker="timer/irq"), 4 * SECOND),
    ]
    profile = off_cpu_of(*others, *ASLEEP[:2])

    found = find_sleepers(profile)

    assert found is not None
    assert (found.threads, found.time_ns, found.rows.tolist()) == (2, 20 * SECOND, [False] * 4 + [True] * 2)


def test_a_thread_that_computes_in_one_place_is_no_sleeper() -> None:
    found = find_sleepers(wall_of())

    assert found is not None
    assert (found.threads, found.time_ns) == (16, 16 * 16 * SECOND)


@pytest.mark.parametrize(
    "profile",
    [
        off_cpu_of(*ASLEEP),  # a deadlock, or a program that waits for work: where is what one wants to know
        off_cpu_of(ASLEEP[0], (waited(1, SECOND), SECOND)),  # one line is no less
        off_cpu_of((waited(0, SECOND), 10 * SECOND), (waited(0, SECOND), 10 * SECOND), (waited(1, 1), 1)),  # ended
        replace(wall_of(), duration_ns=0),
        ProfileBuilder(OFF_CPU_TYPES).build(),
    ],
)
def test_where_folding_would_hide_the_answer_nothing_is_folded(profile: Profile) -> None:
    assert find_sleepers(profile) is None
    assert fold_sleepers(profile) is profile


@pytest.mark.parametrize("profile", [wall_of(), off_cpu_of(*ASLEEP, (waited(1, 1, waker="x (2)"), SECOND))])
def test_folding_changes_no_sum(profile: Profile) -> None:
    folded = fold_sleepers(profile)

    folded.check_valid()
    assert [folded.total(index) for index in (0, 1)] == [profile.total(index) for index in (0, 1)]
    names = [sample.stack[0].function.name for sample in folded.samples()]
    assert names.count("[16 threads did not run]") == 1
    assert find_sleepers(folded) is None


# -- what is printed ---------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(confinement, "_is_own_process", False)
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], kind: str, profile: Profile, **options: Option) -> str:
    Path("it.pb.gz").write_bytes(recording.write(Recording(kind, profile, shown=options)))
    assert run(("show", "it.pb.gz")) == 0
    return capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_sleepers_are_one_row_of_cpu_and_each_one_with_no_fold(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "cpu", wall_of(), threads=True)
    assert text.count("[16 threads did not run]") == 2  # by function, and by thread
    assert "job-" not in text
    assert "256s" in text

    text = shown(capsys, "cpu", wall_of(), threads=True, no_fold=True)
    assert text.count("job-") == 16
    assert "did not run" not in text


@pytest.mark.usefixtures("here")
def test_sleepers_are_one_row_of_each_table_of_off_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    awake = (waited(1, SECOND, waker="python (2)"), SECOND), (waited(2, SECOND, waker="python (1)"), 2 * SECOND)
    profile = off_cpu_of(*ASLEEP, *awake)

    text = shown(capsys, "off-cpu", profile)

    assert " (16)  did not run" in text
    assert "[16 threads did not run]" in text
    assert "ended by" not in text
    assert "job-10" not in text
    assert "job-10" in shown(capsys, "off-cpu", profile, no_fold=True, nodecount=0)


def test_sleepers_are_told_but_not_drawn_in_a_flame_graph(here: Path) -> None:
    (here / "it.pb.gz").write_bytes(recording.write(Recording("cpu", wall_of())))

    assert run(("flamegraph", "it.pb.gz", "-o", "folded.svg")) == 0
    assert run(("flamegraph", "it.pb.gz", "-o", "all.svg", "--no-fold")) == 0

    folded, everything = (here / "folded.svg").read_text(), (here / "all.svg").read_text()
    assert "Not drawn: 16 threads did not run (4 min 16 s); --no-fold draws them" in folded
    assert ">get<" not in folded.replace("\n", "")
    assert "compute" in folded
    assert "32s, 11.11% of everything" in folded  # of the recording, not of what is drawn
    assert "get\n" in everything
    assert "Not drawn" not in everything


# -- pools and places ----------------------------------------------------------------------------------------------


def table(profile: Profile, **options: bool) -> off_cpu.OffCpu:
    return off_cpu.build(profile, **options)


def test_threads_of_a_pool_are_one_row_from_three_on() -> None:
    named = [("job-1", 1), ("job-22", 2), ("job-3", 3), ("io-1", 4), ("io-2", 5), ("python", 6)]
    profile = off_cpu_of(
        *((labels(tid, name, state="sleeping", reason="lock", waker="x (9)"), tid * SECOND) for name, tid in named)
    )

    rows = table(profile, pools=True).threads

    assert [(row.name, row.tid, row.threads, row.count, row.total_ns) for row in rows] == [
        ("job-*", 0, 3, 3, 6 * SECOND),
        ("python", 6, 1, 1, 6 * SECOND),
        ("io-2", 5, 1, 1, 5 * SECOND),
        ("io-1", 4, 1, 1, 4 * SECOND),
    ]
    assert rows[0].by_state_ns == {"sleeping": 6 * SECOND, "disk": 0, "runqueue": 0}
    assert len(table(profile).threads) == 6


def test_the_main_thread_is_in_no_pool() -> None:
    profile = off_cpu_of(
        *((labels(tid, "python", state="sleeping", reason="lock", waker="x (9)"), tid) for tid in range(4, 8))
    )

    assert [(row.tid, row.threads, row.total_ns) for row in table(profile, pools=True).threads] == [
        (0, 3, 4 + 6 + 7),
        (5, 1, 5),
    ]


def test_a_place_is_one_row_unless_wakers_were_asked_for() -> None:
    profile = off_cpu_of(*((waited(tid, SECOND, waker=f"python ({tid})"), tid * SECOND) for tid in range(1, 17)))

    (row,) = table(profile).places
    assert (row.reason, row.place, row.waker, row.count, row.total_ns) == ("lock", "get:7", "", 16, 136 * SECOND)
    assert len(table(profile, by_waker=True).places) == 15


def test_how_many_threads_have_ended_is_not_guessed() -> None:
    ended = labels(0, "job-*", state="sleeping", reason="lock")
    profile = off_cpu_of((ended, SECOND), *((waited(tid, SECOND, waker="x (1)"), SECOND) for tid in (1, 2)))
    output = io.StringIO()

    off_cpu.render(table(profile, pools=True), Console(file=output, width=80))

    assert "(ended)  job-*" in output.getvalue()
