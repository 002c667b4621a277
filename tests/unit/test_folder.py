"""The profile folder: what lies in it, newest first, and what may be deleted."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pprofpy.cli.main import run
from pprofpy.formats import folder, recording
from pprofpy.formats.folder import RUNNING, UNFINISHED
from pprofpy.formats.spool import Spool
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Collection, Frame, Function, ValueType
from pprofpy.model.recording import Recording


def made(kind: str, target: str = "shop (pid 7, CPython 3.11.7)") -> Recording:
    builder = ProfileBuilder([ValueType("samples", "count")])
    builder.add([Frame(Function("work"))], (1,))
    profile = builder.build()
    profile.time_ns, profile.duration_ns = 1_764_000_000 * 10**9, 30 * 10**9
    profile.collection = Collection(engine="test", target=target)
    return Recording(kind, profile)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path))
    monkeypatch.setenv("TZ", "UTC")
    for age, kind in enumerate(("cpu", "gil", "heap")):
        path = tmp_path / f"{kind}-shop-7-20261130-00000{age}.pb.gz"
        path.write_bytes(recording.write(made(kind)))
        os.utime(path, ns=(age * 10**9, age * 10**9))
    return tmp_path


def names(entries: list[folder.Entry]) -> list[str]:
    return [entry.path.name.partition("-")[0] for entry in entries]


def test_the_newest_comes_first_and_says_what_it_is(place: Path) -> None:
    entries = folder.recordings()

    assert names(entries) == ["heap", "gil", "cpu"]
    assert entries[0].summary == recording.summary_of(made("heap"))
    assert entries[0].size_bytes == entries[0].path.stat().st_size


def test_files_of_earlier_versions_are_told_by_their_names(place: Path) -> None:
    (place / "off-cpu-shop-7-20260101-000000.pb.gz").write_bytes(b"\x1f\x8bnot really")

    assert {entry.summary.kind for entry in folder.recordings()} == {"off-cpu", "cpu", "gil", "heap"}


def test_what_is_no_recording_is_left_alone(place: Path) -> None:
    (place / "notes.txt").write_text("mine")
    (place / "cpu-link.pb.gz").symlink_to("/etc/passwd")
    os.mkfifo(place / "cpu-pipe.pb.gz")
    (place / "cpu-folder.pb.gz").mkdir()

    assert len(folder.recordings()) == 3
    assert run(["list-recordings", "--prune", "--keep", "0"]) == 0
    assert sorted(path.name for path in place.iterdir()) == [
        "cpu-folder.pb.gz", "cpu-link.pb.gz", "cpu-pipe.pb.gz", "notes.txt",
    ]  # fmt: skip


def test_unfinished_recordings_are_marked_and_running_ones_never_deleted(place: Path) -> None:
    opened = os.open(place, os.O_PATH | os.O_DIRECTORY)
    cut_short, running = Spool(opened, "cpu-a.spool"), Spool(opened, "cpu-b.spool")
    cut_short.close()

    states = {entry.path.name: entry.state for entry in folder.recordings() if entry.state}
    run(["list-recordings", "--prune", "--keep", "0", "--older-than", "0s"])
    left = [path.name for path in place.iterdir()]
    running.close()
    os.close(opened)

    assert states == {"cpu-a.spool": UNFINISHED, "cpu-b.spool": RUNNING}
    assert left == ["cpu-b.spool"]


def test_pruning_by_age(place: Path) -> None:
    fresh = place / "cpu-fresh.pb.gz"
    fresh.write_bytes(recording.write(made("cpu")))

    assert run(["list-recordings", "--prune", "--older-than", "1d"]) == 0

    assert list(place.iterdir()) == [fresh]


def test_pruning_by_size_takes_the_oldest(place: Path) -> None:
    sizes = {entry.path.name: entry.size_bytes for entry in folder.recordings()}
    two = sum(sorted(sizes.values())[1:])

    assert run(["list-recordings", "--prune", "--keep", str(two)]) == 0

    assert names(folder.recordings()) == ["heap", "gil"]


@pytest.mark.parametrize("words", [["--prune"], ["--keep", "1M"], ["--older-than", "7d"]])
def test_pruning_must_be_asked_for_in_full(words: list[str], place: Path) -> None:
    assert run(["list-recordings", *words]) == 2
    assert len(folder.recordings()) == 3


def test_the_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = place / "cpu-x.pb.gz"
    hostile.write_bytes(recording.write(made("cpu", "evil \x1b[31m (pid 8)")))

    assert run(["list-recordings"]) == 0
    shown = capsys.readouterr().out

    assert re.search(r"2025-11-24 16:00  gil +30 s", shown)
    assert "shop (pid 7, CPython 3.11.7)" in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines()[1:])) <= 100


def test_the_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list-recordings", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)

    assert data["schema"] == "pprofpy.list-recordings"
    assert [one["kind"] for one in data["recordings"]] == ["heap", "gil", "cpu"]
    assert data["recordings"][0]["duration_ns"] == 30 * 10**9


def test_an_empty_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / "none"))

    assert run(["list-recordings"]) == 0
    assert "No recordings in" in capsys.readouterr().out
