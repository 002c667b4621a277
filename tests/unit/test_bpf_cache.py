"""What is kept of compiled programs, and that nobody else's files are ever loaded into the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pprofpy.collectors.bpf.bytecode import Bytecode, MapShape, renumber_maps
from pprofpy.collectors.bpf.cache import cache_folder, remembered

MAP_LOAD = bytes([0x18, 0x11, 0, 0, 7, 0, 0, 0]) + bytes(8)
"""r1 = map of file descriptor 7: one instruction of 16 bytes."""
PLAIN_LOAD = bytes([0x18, 0x01, 0, 0, 7, 0, 0, 0]) + bytes(8)
"""r1 = 7"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "pprofpy"
    return tmp_path / "pprofpy"


def test_only_references_to_maps_are_renumbered() -> None:
    assert renumber_maps(PLAIN_LOAD + MAP_LOAD, {7: 300}) == PLAIN_LOAD + MAP_LOAD[:4] + b"\x2c\x01\0\0" + bytes(8)


def test_bytecode_survives_json() -> None:
    bytecode = Bytecode({"on_switch": MAP_LOAD}, (MapShape("threads", 1, 4, 8, 100, 0),))

    assert Bytecode.from_json(bytecode.to_json()) == bytecode


def test_what_was_found_out_once_is_remembered() -> None:
    assert remembered("x", ["source", "flags"], lambda: "found") == "found"
    assert remembered("x", ["source", "flags"], lambda: "never asked") == "found"
    assert remembered("x", ["source", "other flags"], lambda: "asked") == "asked"
    assert remembered("x", ["sourceflags"], lambda: "asked, too") == "asked, too"


def test_the_file_is_private_and_an_error_leaves_none(folder: Path) -> None:
    remembered("x", [], lambda: "found")
    with pytest.raises(ZeroDivisionError):
        remembered("y", [], lambda: str(1 // 0))

    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_others_could_have_written_is_not_trusted(what: str, folder: Path) -> None:
    remembered("x", [], lambda: "found")
    (path,) = folder.iterdir()
    (path if what == "file" else folder).chmod(0o777)

    assert remembered("x", [], lambda: "found again") == "found again"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_the_file_of_another_user_is_not_trusted(folder: Path) -> None:
    remembered("x", [], lambda: "found")
    (path,) = folder.iterdir()
    os.chown(path, 65534, 65534)

    assert remembered("x", [], lambda: "found again") == "found again"


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    remembered("x", [], lambda: "found")
    (path,) = folder.iterdir()
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    assert remembered("x", [], lambda: "found again") == "found again"


def test_without_a_place_to_keep_it_it_is_found_out_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    assert remembered("x", [], lambda: "one") == "one"
    assert remembered("x", [], lambda: "two") == "two"


def test_old_files_go(folder: Path) -> None:
    for number in range(70):
        remembered("x", [str(number)], lambda: "found")

    assert len(list(folder.iterdir())) == 64
