"""Reading and writing files: private, whole or not at all, never over somebody else's work."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pprofpy.errors import OutputError, ProfileFormatError
from pprofpy.formats import collapsed, files, pprof, speedscope
from pprofpy.formats.files import latest_recording, profile_folder, read_profile, save, save_recording
from pprofpy.formats.output import writing
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

    @pytest.mark.parametrize("target", ["ours", "diary", "missing", "/dev/loop0", "/dev/null"])
    def test_no_link_is_written_through(self, target: str, tmp_path: Path) -> None:
        """Somebody else may have put the link there; only the user can say that it may go."""
        link = tmp_path / "link"
        (tmp_path / "ours").write_bytes(DATA)
        (tmp_path / "diary").write_text("dear diary")
        link.symlink_to(target)

        with pytest.raises(OutputError, match="is a link") as caught:
            save(b"pprofpy", link)
        assert "--force" in caught.value.hint
        assert link.is_symlink()

        save(b"pprofpy", link, force=True)

        assert not link.is_symlink()
        assert link.read_bytes() == b"pprofpy"
        assert (tmp_path / "ours").read_bytes() == DATA
        assert (tmp_path / "diary").read_text() == "dear diary"
        assert not (tmp_path / "missing").exists()

    def test_nothing_that_stands_beside_the_file_is_touched(self, tmp_path: Path) -> None:
        """The temporary file's name cannot be foreseen: an `x.part` there is somebody else's."""
        (tmp_path / "x.part").write_text("dear diary")

        with writing(tmp_path / "x", keep_parts=True) as stream:
            stream.write(DATA)
            parts = {path.name for path in tmp_path.iterdir()} - {"x.part"}

        assert (tmp_path / "x.part").read_text() == "dear diary"
        assert re.fullmatch(r"x\.[0-9a-f]{16}\.part", parts.pop())
        assert {path.name for path in tmp_path.iterdir()} == {"x", "x.part"}

    def test_what_was_streamed_before_a_failure_is_kept_and_named(self, full_disk: Path) -> None:
        def fail() -> None:
            with writing(full_disk / "x", keep_parts=True) as stream:
                stream.write(os.urandom(100_000))

        with pytest.raises(OutputError, match=r"No space left.* written so far is in") as caught:
            fail()

        (part,) = full_disk.iterdir()
        assert part.stat().st_size > 0
        assert caught.value.message.endswith(str(part))

    def test_an_error_of_the_writer_is_not_called_one_of_the_file(self, tmp_path: Path) -> None:
        def fail() -> None:
            with writing(tmp_path / "x") as stream:
                stream.write(DATA)
                raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))

        with pytest.raises(ProcessLookupError):
            fail()

        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_appears_meanwhile_is_not_replaced(self, tmp_path: Path) -> None:
        def interfere() -> None:
            with writing(tmp_path / "x") as stream:
                stream.write(DATA)
                (tmp_path / "x").write_text("dear diary")

        with pytest.raises(OutputError, match="File exists"):
            interfere()

        assert [path.name for path in tmp_path.iterdir()] == ["x"]
        assert (tmp_path / "x").read_text() == "dear diary"

    def test_a_block_device_is_never_overwritten(self, tmp_path: Path) -> None:
        try:
            os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
            os.mknod(tmp_path / "watchdog", stat.S_IFCHR | 0o600, os.makedev(10, 130))
        except PermissionError:
            pytest.skip("making a device needs root")

        with pytest.raises(OutputError, match=r"block device: .* destroy"):
            save(DATA, tmp_path / "disk")
        with pytest.raises(OutputError, match="is a device"):
            save(DATA, tmp_path / "watchdog")

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
    @pytest.mark.parametrize("kind", ["file", "pipe"])
    def test_what_belongs_to_another_user_is_left_alone(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / kind
        path.write_bytes(DATA) if kind == "file" else os.mkfifo(path)
        os.chown(path, 65534, 65534)

        with pytest.raises(OutputError, match="another user"):
            save(b"pprofpy", path)

        assert path.stat().st_uid == 65534

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give links away")
    def test_a_folder_is_not_reached_by_another_users_link(self, tmp_path: Path) -> None:
        (tmp_path / "ours").mkdir()
        (tmp_path / "link").symlink_to("ours")
        save(DATA, tmp_path / "link" / "a")
        os.chown(tmp_path / "link", 65534, 65534, follow_symlinks=False)

        with pytest.raises(OutputError, match="'link' on the way is a link of another user"):
            save(DATA, tmp_path / "link" / "b")

        assert [path.name for path in (tmp_path / "ours").iterdir()] == ["a"]

    def test_a_descriptor_that_we_inherited_gets_the_data(self, tmp_path: Path) -> None:
        with (tmp_path / "x").open("wb") as stream:
            stream.write(b"head ")
            stream.flush()
            save(b"pprofpy", Path(f"/dev/fd/{stream.fileno()}"))

        assert (tmp_path / "x").read_bytes() == b"head pprofpy"

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

    def test_what_others_put_there_is_no_recording(self, folder: Path, tmp_path: Path) -> None:
        """Neither stops a bare `pprofpy top`: a pipe that nobody writes to, a device without end, a link."""
        ours = save_recording(DATA, "a.pb.gz")
        os.mkfifo(folder / "b.pb.gz")
        (folder / "c.pb.gz").symlink_to("/dev/zero")
        (folder / "d.pb.gz").symlink_to(ours)
        (folder / "e.pb.gz").mkdir()
        if os.geteuid() == 0:
            (folder / "f.pb.gz").write_bytes(DATA)
            os.chown(folder / "f.pb.gz", 65534, 65534)

        assert latest_recording() == ours

    def test_where_the_folder_cannot_be_used_a_new_one_is_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Never one that stands there already: in a temporary folder, it is somebody else's."""
        (tmp_path / "file").touch()
        (tmp_path / "fallback").mkdir()
        monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / "file" / "profiles"))
        monkeypatch.setattr(files, "_LAST_RESORTS", (tmp_path / "missing", tmp_path / "fallback"))

        path = save_recording(DATA, "cpu.pb.gz")

        assert path.read_bytes() == DATA
        assert path.name == "cpu.pb.gz"
        assert path.parent.parent == tmp_path / "fallback"
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    @pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give links away")
    def test_the_folder_is_not_reached_by_another_users_link(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "private").mkdir()
        (tmp_path / "link").symlink_to("private")
        os.chown(tmp_path / "link", 65534, 65534, follow_symlinks=False)
        monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / "link" / "profiles"))
        monkeypatch.setattr(files, "_LAST_RESORTS", (tmp_path,))

        path = save_recording(DATA, "cpu.pb.gz")

        assert path.parent.parent == tmp_path
        assert list((tmp_path / "private").iterdir()) == []

    @pytest.mark.parametrize(("user", "places"), [(0, 0), (1000, 1)])
    def test_root_does_not_ask_the_environment_for_a_temporary_folder(
        self, user: int, places: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(os, "geteuid", lambda: user)

        assert [str(path) for path in files._last_resorts()].count(str(tmp_path)) == places

    def test_a_full_disk_sends_it_elsewhere(
        self, full_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PPROFPY_DIR", str(full_disk))
        monkeypatch.setattr(files, "_LAST_RESORTS", (tmp_path,))

        path = save_recording(os.urandom(100_000), "cpu.pb.gz")

        assert path.parent.parent == tmp_path
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

    @pytest.mark.parametrize("name", ["/dev/zero", "/dev/tty", "/dev/kmsg"])
    def test_a_device_is_no_profile(self, name: str) -> None:
        if not Path(name).exists():
            pytest.skip(f"there is no {name} here")
        with pytest.raises(ProfileFormatError, match="neither a file nor a pipe"):
            read_profile(name)

    def test_a_file_without_end_is_not_read(self, tmp_path: Path) -> None:
        with (tmp_path / "sparse").open("wb") as stream:
            stream.truncate(1 << 43)

        with pytest.raises(ProfileFormatError, match="larger than any recording"):
            read_profile(str(tmp_path / "sparse"))

    def test_a_pipe_is_read_to_its_end(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(DATA))
        writer.start()

        assert len(read_profile(str(tmp_path / "pipe"))) == 1
        writer.join()

    def test_a_damaged_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "cut.pb.gz").write_bytes(DATA[:-9])

        with pytest.raises(ProfileFormatError, match=r"cut\.pb\.gz: .*damaged"):
            read_profile(str(tmp_path / "cut.pb.gz"))

    def test_the_name_does_not_matter(self, tmp_path: Path) -> None:
        (tmp_path / "x.txt").write_bytes(DATA)

        assert len(read_profile(str(tmp_path / "x.txt"))) == 1
