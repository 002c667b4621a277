"""An unfinished recording: its windows are in a file as they come, and survive whatever ends the program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pprofpy.errors import ProfileFormatError
from pprofpy.formats import decode, recording, spool
from pprofpy.formats.files import latest_recording, read_recording
from pprofpy.formats.spool import CUT_SHORT, MAGIC, Spool, is_being_written
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Frame, Function, ValueType
from pprofpy.model.recording import Recording

NAME = "cpu-shop-1.spool"


def window(samples: int) -> Recording:
    builder = ProfileBuilder([ValueType("samples", "count")])
    builder.add([Frame(Function("work"))], (samples,))
    profile = builder.build()
    profile.duration_ns = 10
    return Recording("cpu", profile, shown={"nodecount": 5})


def total(found: Recording | None) -> int:
    return int(found.profile.values.sum()) if found else 0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield opened
    os.close(opened)


def test_all_windows_come_back_as_one_recording(folder: int) -> None:
    with Spool(folder, NAME) as written:
        for samples in (1, 2, 3):
            written.append(window(samples))
        found = written.recording()

    assert total(found) == 6
    assert found is not None
    assert (found.kind, found.profile.duration_ns, dict(found.shown)) == ("cpu", 30, {"nodecount": 5})


def test_a_recording_that_nobody_finished_is_read_and_says_so(folder: int, tmp_path: Path) -> None:
    with Spool(folder, NAME) as written:
        written.append(window(1))
        written.append(window(2))

    found = read_recording(str(tmp_path / NAME))

    assert total(found) == 3
    assert found.profile.collection.notes == (CUT_SHORT,)
    assert decode((tmp_path / NAME).read_bytes()).values.sum() == 3


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_block_that_is_not_all_there_ends_the_file(cut: int, folder: int, tmp_path: Path) -> None:
    with Spool(folder, NAME) as written:
        written.append(window(1))
        written.append(window(2))
    data = (tmp_path / NAME).read_bytes()

    assert total(spool.read_recording(data[:-cut])) == 1
    assert total(spool.read_recording(data + b"\0" * cut)) == 3


def test_a_damaged_block_ends_the_file(folder: int, tmp_path: Path) -> None:
    with Spool(folder, NAME) as written:
        written.append(window(1))
        written.append(window(2))
    data = bytearray((tmp_path / NAME).read_bytes())
    data[-10] ^= 0xFF

    assert total(spool.read_recording(bytes(data))) == 1


@pytest.mark.parametrize("data", [MAGIC, MAGIC + b"\0" * 7, MAGIC + b"\xff" * 8, b"pprofpy spool 2\n"])
def test_a_file_without_a_window_is_refused(data: bytes) -> None:
    with pytest.raises(ProfileFormatError):
        recording.read(data)


def test_the_file_is_locked_while_it_is_written_and_gone_when_it_was_finished(folder: int, tmp_path: Path) -> None:
    written = Spool(folder, NAME)
    assert is_being_written(folder, NAME)

    written.discard()

    assert list(tmp_path.iterdir()) == []
    assert not is_being_written(folder, NAME)


def test_the_latest_recording_may_be_an_unfinished_one_but_not_one_that_goes_on(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path))
    (tmp_path / "old.pb.gz").write_bytes(recording.write(window(1)))
    os.utime(tmp_path / "old.pb.gz", (1, 1))
    written = Spool(folder, NAME)
    written.append(window(1))

    going_on = latest_recording()
    written.close()

    assert going_on == tmp_path / "old.pb.gz"
    assert latest_recording() == tmp_path / NAME


def test_without_a_folder_windows_stay_in_memory() -> None:
    with Spool(-1, NAME) as written:
        written.append(window(1))
        written.append(window(2))

        assert total(written.recording()) == 3
        assert written.problem


def test_what_a_full_disk_does_not_take_is_kept_and_written_later(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite

    def full(file: int, content: bytes, at: int) -> int:
        if at > len(MAGIC):
            raise OSError(28, "No space left on device")
        return real(file, content[:100], at)

    written = Spool(folder, NAME)
    monkeypatch.setattr(os, "pwrite", full)
    written.append(window(1))
    problem, during = written.problem, total(written.recording())
    monkeypatch.setattr(os, "pwrite", real)
    written.append(window(2))
    written.close()

    assert (problem, during, written.problem) == ("No space left on device", 1, "")
    assert total(read_recording(str(tmp_path / NAME))) == 3


def test_very_many_windows_become_fewer_and_lose_nothing(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_MOST_WINDOWS", 10)
    written = Spool(folder, NAME)
    for _ in range(100):
        written.append(window(1))
    size = (tmp_path / NAME).stat().st_size
    found = written.recording()
    written.close()

    assert total(found) == total(read_recording(str(tmp_path / NAME))) == 100
    assert size < 15 * len(recording.write(window(1)))
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_windows_count_once_where_they_cannot_be_merged(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_MOST_WINDOWS", 10)
    (tmp_path / f"{NAME}.new").touch()
    with Spool(folder, NAME) as written:
        for _ in range(40):
            written.append(window(1))
        found = written.recording()

    assert total(found) == total(read_recording(str(tmp_path / NAME))) == 40
