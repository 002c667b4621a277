"""What is kept of compiled programs, and that nobody else's files are ever loaded into the kernel."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pprofpy.collectors.kernel.bytecode import Bytecode, MapShape, renumber_maps
from pprofpy.collectors.kernel.cache import cache_folder, remembered, sealed

MAP_LOAD = bytes([0x18, 0x11, 0, 0, 7, 0, 0, 0]) + bytes(8)
"""r1 = map of file descriptor 7: one instruction of 16 bytes."""
PLAIN_LOAD = bytes([0x18, 0x01, 0, 0, 7, 0, 0, 0]) + bytes(8)
"""r1 = 7"""


EXCHANGE = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
ours, forged, aside = sys.argv[1:]
print("ready", flush=True)
while True:
    os.rename(ours, aside); os.rename(forged, ours); os.rename(ours, forged); os.rename(aside, ours)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own."""
    use_home(monkeypatch, tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "pprofpy"
    return cache_folder()


def use_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(home)))


def recall(kind: str, key: list[str], find_out: Callable[[], str]) -> str:
    return remembered(kind, key, find_out, str)


def parse(text: str) -> str:
    if text == "broken":
        raise KeyError("maps")
    return text


def test_only_references_to_maps_are_renumbered() -> None:
    assert renumber_maps(PLAIN_LOAD + MAP_LOAD, {7: 300}) == PLAIN_LOAD + MAP_LOAD[:4] + b"\x2c\x01\0\0" + bytes(8)


def test_bytecode_survives_json() -> None:
    bytecode = Bytecode({"on_switch": MAP_LOAD}, (MapShape("threads", 1, 4, 8, 100, 0),))

    assert Bytecode.from_json(bytecode.to_json()) == bytecode


def test_what_was_found_out_once_is_recall() -> None:
    assert recall("x", ["source", "flags"], lambda: "found") == "found"
    assert recall("x", ["source", "flags"], lambda: "never asked") == "found"
    assert recall("x", ["source", "other flags"], lambda: "asked") == "asked"
    assert recall("x", ["sourceflags"], lambda: "asked, too") == "asked, too"


def test_the_file_is_private_and_an_error_leaves_none(folder: Path) -> None:
    recall("x", [], lambda: "found")
    with pytest.raises(ZeroDivisionError):
        recall("y", [], lambda: str(1 // 0))

    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["file", "folder", "folder above", "home"])
def test_what_others_could_have_written_is_not_trusted(what: str, folder: Path) -> None:
    recall("x", [], lambda: "found")
    (path,) = folder.iterdir()
    {"file": path, "folder": folder, "folder above": folder.parent, "home": folder.parent.parent}[what].chmod(0o777)

    assert recall("x", [], lambda: "found again") == "found again"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_the_file_of_another_user_is_not_trusted(folder: Path) -> None:
    recall("x", [], lambda: "found")
    (path,) = folder.iterdir()
    os.chown(path, 65534, 65534)

    assert recall("x", [], lambda: "found again") == "found again"


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    recall("x", [], lambda: "found")
    (path,) = folder.iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    assert recall("x", [], lambda: "found again") == "found again"


def test_without_a_place_to_keep_it_it_is_found_out_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    use_home(monkeypatch, tmp_path / "file")

    assert recall("x", [], lambda: "one") == "one"
    assert recall("x", [], lambda: "two") == "two"


def test_old_files_go(folder: Path) -> None:
    for number in range(260):
        recall("x", [str(number)], lambda: "found")

    assert len(list(folder.iterdir())) == 256


def test_under_sudo_the_callers_environment_names_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root takes its home from the password file: what lies there, the kernel is going to run."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/mallory")
    monkeypatch.setenv("HOME", "/home/mallory")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache_folder() == tmp_path / ".cache" / "pprofpy"

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cache_folder() == Path("/home/mallory/pprofpy")


@pytest.mark.parametrize("what", ["cut", "changed", "empty", "another entry's", "without a seal"])
def test_a_damaged_entry_is_found_out_again(what: str, folder: Path) -> None:
    recall("x", ["1"], lambda: "found")
    (path,) = folder.iterdir()
    content = path.read_bytes()
    recall("x", ["2"], lambda: "other")
    (other,) = set(folder.iterdir()) - {path}
    path.write_bytes(
        {
            "cut": content[:-1],
            "changed": content[:-1] + b"!",
            "empty": b"",
            "another entry's": other.read_bytes(),
            "without a seal": b"found",
        }[what]
    )

    assert recall("x", ["1"], lambda: "found again") == "found again"
    assert recall("x", ["1"], lambda: "never asked") == "found again"


def test_an_entry_that_does_not_parse_is_found_out_again() -> None:
    """Another version of pprofpy may have kept it."""
    recall("x", [], lambda: "broken")

    assert remembered("x", [], lambda: "found", parse) == "found"
    with pytest.raises(KeyError):
        remembered("y", [], lambda: "broken", parse)


def test_an_entry_with_a_second_name_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    recall("x", [], lambda: "found")
    (path,) = folder.iterdir()
    os.link(path, tmp_path / "second")

    assert recall("x", [], lambda: "found again") == "found again"


def test_a_pipe_in_the_place_of_an_entry_does_not_block(folder: Path) -> None:
    recall("x", [], lambda: "found")
    (path,) = folder.iterdir()
    path.unlink()
    os.mkfifo(path, 0o600)

    assert recall("x", [], lambda: "found again") == "found again"


def test_a_folder_behind_a_link_of_another_user_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a link away")
    recall("x", [], lambda: "found")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert recall("x", [], lambda: "found again") == "found"

    os.chown(folder, 65534, 65534, follow_symlinks=False)
    assert recall("x", [], lambda: "found again") == "found again"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be attacked as root")
def test_who_exchanges_folders_meanwhile_wins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user owns a folder on the way, and swaps ours for its own as fast as it can."""
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        use_home(monkeypatch, Path(home))
        folder, forged = cache_folder(), cache_folder().with_name("forged")
        recall("x", [], lambda: "found")
        (entry,) = folder.iterdir()
        forged.mkdir(mode=0o755)
        (forged / entry.name).write_bytes(sealed(entry.name, "forged"))
        for path in (forged, forged / entry.name, folder.parent):
            os.chown(path, 65534, 65534)
        words = [sys.executable, "-c", EXCHANGE, str(folder), str(forged), str(folder.parent / "aside")]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as attacker:
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == b"ready\n"
            answers = {recall("x", [], lambda: "found out") for _ in range(3000)}
            is_attacking = attacker.poll() is None
            attacker.kill()

    assert is_attacking
    assert answers == {"found out"}


def test_a_folder_that_is_not_trusted_leaves_no_descriptor_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_home(monkeypatch, tmp_path)
    tmp_path.chmod(0o777)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))

    for _ in range(10):
        recall("x", [], lambda: "found out")

    assert len(list(descriptors.iterdir())) == before
