"""Reading and writing files: private, whole or not at all, never over somebody else's work."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pprofpy.errors import OutputError, ProfileFormatError
from pprofpy.formats import collapsed, pprof, speedscope
from pprofpy.formats.files import latest_recording, profile_folder, read_profile, save, save_recording
from tests.stacks import profile_of

DATA = pprof.write(profile_of({"main > work": 3}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty profile folder that does not exist yet."""
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / "profiles"))
    return tmp_path / "profiles"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 KiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "pprofpy-test", str(mount)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting a small disk needs root")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


class TestSave:
    """One file, written where the user asked."""

    def test_the_file_is_private(self, tmp_path: Path) -> None:
        save(DATA, tmp_path / "a.pb.gz")

        assert (tmp_path / "a.pb.gz").read_bytes() == DATA
        assert stat.S_IMODE((tmp_path / "a.pb.gz").stat().st_mode) == 0o600

    def test_nothing_else_is_left_in_the_folder(self, tmp_path: Path) -> None:
        save(DATA, tmp_path / "a.pb.gz")

        assert [path.name for path in tmp_path.iterdir()] == ["a.pb.gz"]

    @pytest.mark.parametrize("ours", [DATA, speedscope.write(profile_of({"a": 1})), b""])
    def test_our_own_and_empty_files_are_replaced(self, ours: bytes, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(ours)

        save(DATA, tmp_path / "a")

        assert (tmp_path / "a").read_bytes() == DATA

    @pytest.mark.parametrize(
        "foreign", [b"dear diary", collapsed.write(profile_of({"a": 1})), b"x" * 2000 + b"pprofpy"]
    )
    def test_others_are_replaced_only_by_force(self, foreign: bytes, tmp_path: Path) -> None:
        path = tmp_path / "diary"
        path.write_bytes(foreign)

        with pytest.raises(OutputError, match="exists") as caught:
            save(DATA, path)
        assert "--force" in caught.value.hint
        assert path.read_bytes() == foreign

        save(DATA, path, force=True)
        assert path.read_bytes() == DATA

    def test_a_link_is_replaced_and_its_target_left_alone(self, tmp_path: Path) -> None:
        """Somebody else may have put the link there; we never write through it."""
        target, link, loose = tmp_path / "target", tmp_path / "link", tmp_path / "loose"
        target.write_bytes(DATA)
        link.symlink_to(target)
        loose.symlink_to(tmp_path / "missing")

        save(b"pprofpy", link)
        save(b"pprofpy", loose)

        assert target.read_bytes() == DATA
        assert link.read_bytes() == loose.read_bytes() == b"pprofpy"
        assert not (tmp_path / "missing").exists()

    def test_a_link_to_a_foreign_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "diary").write_text("dear diary")
        (tmp_path / "link").symlink_to(tmp_path / "diary")

        with pytest.raises(OutputError, match="exists"):
            save(DATA, tmp_path / "link")

    def test_a_pipe_gets_the_data(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        received: list[bytes] = []
        reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
        reader.start()

        save(DATA, tmp_path / "pipe")

        reader.join()
        assert received == [DATA]
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)

    def test_a_device_is_no_file_to_replace(self) -> None:
        save(DATA, Path("/dev/null"))

        assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)

    @pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "🔥" * 63])
    def test_the_longest_names_that_a_folder_takes(self, name: str, tmp_path: Path) -> None:
        save(DATA, tmp_path / name)

        assert (tmp_path / name).exists()

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("missing/a", "mkdir -p"), ("x" * 256, "-o"), (".", "name a file"), ("file/a", "-o")],
    )
    def test_what_cannot_be_written_is_an_error_with_a_hint(self, name: str, hint: str, tmp_path: Path) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(OutputError) as caught:
            save(DATA, tmp_path / name)

        assert hint in caught.value.hint

    def test_a_full_disk_leaves_what_was_there(self, full_disk: Path) -> None:
        path = full_disk / "a.pb.gz"
        save(DATA, path)

        with pytest.raises(OutputError, match="No space left") as caught:
            save(DATA + bytes(os.urandom(100_000)), path)

        assert "free some space" in caught.value.hint
        assert path.read_bytes() == DATA
        assert [entry.name for entry in full_disk.iterdir()] == ["a.pb.gz"]


class TestRecordings:
    """The profile folder."""

    def test_the_first_recording_creates_a_private_folder(self, folder: Path) -> None:
        path = save_recording(DATA, "cpu.pb.gz")

        assert path == folder / "cpu.pb.gz"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def test_no_recording_replaces_another(self, folder: Path) -> None:
        names = [save_recording(DATA, "cpu.pb.gz").name for _ in range(3)]

        assert names == ["cpu.pb.gz", "cpu-2.pb.gz", "cpu-3.pb.gz"]

    def test_the_latest_is_found(self, folder: Path) -> None:
        for name, age in (("a.pb.gz", 300), ("b.pb.gz", 100), ("c.pb.gz", 200)):
            os.utime(save_recording(DATA, name), (10_000 - age, 10_000 - age))

        assert latest_recording() == folder / "b.pb.gz"

    def test_without_a_recording_the_error_says_how_to_make_one(self, folder: Path) -> None:
        with pytest.raises(ProfileFormatError, match="nothing has been recorded yet") as caught:
            latest_recording()

        assert "pprofpy cpu" in caught.value.hint

    def test_where_the_folder_cannot_be_used_another_place_is_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "fallback").mkdir()
        monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / "file" / "profiles"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "fallback"))

        path = save_recording(DATA, "cpu.pb.gz")

        assert path == tmp_path / "fallback" / "cpu.pb.gz"
        assert path.read_bytes() == DATA

    def test_a_full_disk_sends_it_elsewhere(
        self, full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PPROFPY_DIR", str(full_disk))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

        path = save_recording(os.urandom(100_000), "cpu.pb.gz")

        assert path == tmp_path / "cpu.pb.gz"
        assert list(full_disk.iterdir()) == []

    def test_the_folder_follows_the_users_state_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PPROFPY_DIR", raising=False)
        monkeypatch.setenv("XDG_STATE_HOME", "/state")
        assert profile_folder() == Path("/state/pprofpy")

        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setenv("HOME", "/home/me")
        assert profile_folder() == Path("/home/me/.local/state/pprofpy")


class TestRead:
    """Files that are not there or not profiles."""

    @pytest.mark.parametrize(
        ("name", "reason"), [("missing", "there is no file"), (".", "cannot read"), ("a\0b", "cannot read")]
    )
    def test_what_cannot_be_read_is_named(self, name: str, reason: str, tmp_path: Path) -> None:
        with pytest.raises(ProfileFormatError, match=reason):
            read_profile(f"{tmp_path}/{name}")

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "cut.pb.gz").write_bytes(DATA[:-9])

        with pytest.raises(ProfileFormatError, match=r"cut\.pb\.gz: .*damaged"):
            read_profile(str(tmp_path / "cut.pb.gz"))

    def test_the_name_does_not_matter(self, tmp_path: Path) -> None:
        (tmp_path / "x.txt").write_bytes(DATA)

        assert len(read_profile(str(tmp_path / "x.txt"))) == 1
