"""Source that is not where the profile says: in another mount namespace, or in an archive."""

from __future__ import annotations

import io
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from pprofpy.cli.kept_sources import keep_sources
from pprofpy.formats import archives, recording
from pprofpy.formats.source_text import LARGEST_BYTES
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Frame, Function, Profile, ValueType
from pprofpy.model.recording import Recording
from pprofpy.model.sources import KeptSource, sources_of
from pprofpy.reports.source_finder import SourceFinder
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, Start


def profile_of(*files: str) -> Profile:
    builder = ProfileBuilder((ValueType("samples", "count"),))
    for file in files:
        builder.add((Frame(Function("work", "work", file), 1),), (1,))
    return builder.build()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root, to make a mount namespace")
def test_source_of_a_container_is_kept_and_no_file_of_ours_is_shown_for_it(start: Start, tmp_path: Path) -> None:
    inner, folder = tmp_path / "inner", tmp_path / "app"
    for one in (inner, folder):
        one.mkdir()
    shutil.copy(PROGRAMS / "sleeper.py", inner / "main.py")
    with zipfile.ZipFile(inner / "lib.pyz", "w") as archive:
        archive.writestr("shop.py", "x = 1  # in the archive\n")
    for name in ("main.py", "other.py"):
        (folder / name).write_text("bogus = 1\n")
    mounted = f'mount --bind "{inner}" "{folder}" && exec "{sys.executable}" "{folder}/main.py"'
    target = open_target(start("unshare", "--mount", "sh", "-c", mounted).pid)
    names = [f"{folder}/{name}" for name in ("main.py", "other.py", "lib.pyz/shop.py")]

    kept = keep_sources(Recording("cpu", profile_of(*names)), target)
    found = sources_of(recording.read(recording.write(kept)))

    assert found is not None
    assert found.keys() == {names[0], names[2]}
    assert found[names[2]].text == "x = 1  # in the archive\n"
    finder = SourceFinder(kept=found)
    sleeper = finder.find(names[0])
    assert sleeper is not None
    assert sleeper.lines == (PROGRAMS / "sleeper.py").read_text().splitlines()
    assert finder.find(names[1]) is None  # there is one here, of that name


def test_of_a_process_that_sees_our_files_none_is_kept(start: Start) -> None:
    target = open_target(start(sys.executable, str(PROGRAMS / "sleeper.py")).pid)

    assert sources_of(keep_sources(Recording("cpu", profile_of(__file__)), target)) is None


def test_source_that_was_kept_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("ours\n")

    source = SourceFinder(kept={str(path): KeptSource(str(path), "theirs\n", 7)}).find(str(path))

    assert source is not None
    assert (source.lines, source.mtime_ns) == (["theirs"], 7)


@pytest.mark.parametrize("suffix", ["pyz", "egg", "zip"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_source_in_an_archive_is_found(tmp_path: Path, suffix: str, method: int) -> None:
    path = tmp_path / f"shop.{suffix}"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("cart/total.py", "def total():\n    return 1\n")

    source = SourceFinder().find(f"{path}/cart/total.py")

    assert source is not None
    assert source.lines == ["def total():", "    return 1"]
    assert SourceFinder().find(f"{path}/cart/none.py") is None


def test_an_archive_with_more_members_than_any_program_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name in ("a.py", "b.py"):
            archive.writestr(name, b"x")
    assert archives.member(buffer.getvalue(), "a.py") == b"x"

    monkeypatch.setattr(archives, "_MOST_MEMBERS", 1)

    with pytest.raises(OSError, match="more members"):
        archives.member(buffer.getvalue(), "a.py")


def test_archives_that_are_damaged_or_stand_for_more_than_source_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pyz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.py", bytes(LARGEST_BYTES + 1))
    with zipfile.ZipFile(tmp_path / "lzma.pyz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.py", b"x")
    content = path.read_bytes()

    for broken, name in (
        (content, "zeros.py"),
        (content[: len(content) // 2], "zeros.py"),
        (content.replace(b"PK\x01\x02", b"PK\xff\xff"), "zeros.py"),
        ((tmp_path / "lzma.pyz").read_bytes(), "a.py"),
        (b"", "a.py"),
    ):
        with pytest.raises(OSError, match=r"member|larger"):
            archives.member(broken, name)
