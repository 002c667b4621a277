"""Opening what a target names: within its own root, regular files only, without blocking, and never more than asked."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from pprofpy.elf import NotElfError, read_headers
from pprofpy.target import named_files, procfs
from pprofpy.target.named_files import NamedFiles, open_mapped, open_program
from pprofpy.target.procfs import MappedArea

PID = 7


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A container's root folder; beside it lies a file that is ours alone."""
    (tmp_path / "ours").write_text("ours")
    (tmp_path / "root" / "srv").mkdir(parents=True)
    (tmp_path / "root" / "srv" / "file").write_text("theirs")
    return tmp_path / "root"


def text(root: Path, path: str) -> str:
    with NamedFiles(root).open(path) as file:
        return file.read(0, 1 << 20).decode()


# -- paths ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/srv/file", "srv/file", "//srv/./file", "/../../srv/file", "/srv/../srv/file"])
def test_a_path_is_that_of_the_target(path: str, root: Path) -> None:
    assert text(root, path) == "theirs"
    assert NamedFiles(root).has(path)


@pytest.mark.parametrize("link", ["/srv/file", "file", "../../../srv/file", "./../srv/file"])
def test_links_mean_what_they_mean_to_the_target(link: str, root: Path) -> None:
    (root / "srv" / "link").symlink_to(link)
    (root / "folder").symlink_to("/srv")

    assert text(root, "/srv/link") == "theirs"
    assert text(root, "/folder/link") == "theirs"


@pytest.mark.parametrize("link", ["{ours}", "../../ours", "../../../../../../../..{ours}", "/proc/self/root{ours}"])
def test_no_link_leads_to_a_file_of_ours(link: str, root: Path) -> None:
    (root / "srv" / "link").symlink_to(link.format(ours=root.parent / "ours"))

    with pytest.raises(FileNotFoundError):
        NamedFiles(root).open("/srv/link")
    assert not NamedFiles(root).has("/srv/link")


def test_a_link_of_proc_says_a_path_and_no_more(root: Path) -> None:
    """The kernel would open the file that has no name any more."""
    with (root / "srv" / "file").open() as stream:
        (root / "srv" / "file").unlink()
        link = f"/proc/self/fd/{stream.fileno()}"
        assert Path(link).read_text() == "theirs"

        with pytest.raises(FileNotFoundError):
            NamedFiles(Path("/")).open(link)


def test_links_in_a_circle_end(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    for number in range(30):  # 2^30 steps, if they were all followed
        (root / f"l{number}").symlink_to(f"l{number + 1}/../l{number + 1}" if number < 29 else "srv")

    for path in ("/a", "/l0/file"):
        with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
            NamedFiles(root).open(path)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 5000, "/srv/" * 900 + "file", "../" * 1300 + "\0"])
def test_what_is_no_path_is_no_file(path: str, root: Path) -> None:
    with pytest.raises(OSError, match="Errno"):
        NamedFiles(root).open(path)
    assert not NamedFiles(root).has(path)


def test_no_descriptor_stays_open(root: Path) -> None:
    (root / "srv" / "link").symlink_to("/srv/nothing")
    before = len(list(Path("/proc/self/fd").iterdir()))

    for path in ("/srv/file", "/srv/link", "/srv/file/x", "/srv", "/nothing", "/srv/link/x"):
        NamedFiles(root).has(path)
        try:
            NamedFiles(root).open(path).close()
        except OSError:
            continue

    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- kinds of files ------------------------------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        folder = Path.cwd()
        os.chdir(path.parent)  # the name of a socket must be short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(folder)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, make_socket])
def test_only_regular_files_are_opened(make: Callable[[Path], None], root: Path) -> None:
    make(root / "srv" / "odd")

    with pytest.raises(OSError, match="not a regular file"):
        NamedFiles(root).open("/srv/odd")
    assert not NamedFiles(root).has("/srv/odd")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/tty", "/dev/random"])
def test_devices_are_not_even_opened(device: str) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        NamedFiles(Path("/")).open(device)


# -- sizes ---------------------------------------------------------------------------------------------------------


def test_eight_terabytes_of_nothing_cost_nothing(root: Path) -> None:
    huge = root / "srv" / "libpython3.11.so"
    huge.touch()
    os.truncate(huge, 8 << 40)

    with NamedFiles(root).open("/srv/libpython3.11.so") as file:
        assert file.read(1 << 40, 64) == bytes(64)
        with pytest.raises(OSError, match="128 MB"):
            file.read(0, 4 << 40)
        with pytest.raises(NotElfError):
            read_headers(file.read)


@pytest.mark.parametrize(("offset", "size"), [(0, -1), (-1, 4), (6, 4), (1 << 62, 4), (1 << 70, 1 << 70), (0, 0)])
def test_there_is_nothing_beyond_a_files_end(offset: int, size: int, root: Path) -> None:
    with NamedFiles(root).open("/srv/file") as file:
        assert file.read(offset, size) == b""


def test_a_file_that_is_cut_short_while_we_read_it_only_has_less(root: Path) -> None:
    with NamedFiles(root).open("/srv/file") as file:
        os.truncate(root / "srv" / "file", 2)

        assert file.read(0, 6) == b"th"
        assert file.read(4, 2) == b""


# -- what is mapped ------------------------------------------------------------------------------------------------


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[Path, MappedArea]:
    """A file that we have mapped, and where."""
    path = tmp_path / "mapped\nfile"
    path.write_bytes(b"mapped" * 1000)
    with path.open("rb") as stream:
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    (mapping,) = (one for one in procfs.mappings("self") if one.path == str(path))
    _kept.append(content)
    return path, mapping


_kept: list[mmap.mmap] = []


def test_the_mapped_file_is_read_whoever_bears_its_name_now(mapped: tuple[Path, MappedArea]) -> None:
    path, mapping = mapped
    path.unlink()
    os.mkfifo(path)
    (mapping,) = (one for one in procfs.mappings("self") if one.start == mapping.start)
    assert (mapping.path, mapping.name.endswith(" (deleted)")) == (str(path), True)

    if os.geteuid() == 0:
        with open_mapped(os.getpid(), mapping) as file:
            assert file.read(0, 6) == b"mapped"
    else:
        with pytest.raises(FileNotFoundError):
            open_mapped(os.getpid(), mapping)


@pytest.fixture
def without_map_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A pid whose mapped files can only be reached by their names, as for those without privileges."""
    (tmp_path / "proc" / str(PID)).mkdir(parents=True)
    (tmp_path / "proc" / str(PID) / "root").symlink_to("/")
    monkeypatch.setattr(procfs, "PROC", tmp_path / "proc")
    return PID


def test_without_privileges_the_name_does_if_it_is_that_of_the_mapped_file(
    mapped: tuple[Path, MappedArea], without_map_files: int
) -> None:
    path, mapping = mapped

    with open_mapped(without_map_files, mapping) as file:
        assert file.read(0, 6) == b"mapped"

    path.rename(path.with_suffix(".old"))
    path.write_bytes(b"another")
    with pytest.raises(OSError, match="another file has taken its name"):
        open_mapped(without_map_files, mapping)


def test_a_fifo_in_the_place_of_a_mapped_file_does_not_block(
    mapped: tuple[Path, MappedArea], without_map_files: int
) -> None:
    path, mapping = mapped
    path.unlink()
    os.mkfifo(path)

    with pytest.raises(OSError, match="another file has taken its name"):
        open_mapped(without_map_files, mapping)
    with pytest.raises(OSError, match="not a regular file"):  # even if it were the mapped one
        open_mapped(without_map_files, mapping._replace(inode=path.stat().st_ino))


def test_memory_without_a_file_has_none(without_map_files: int) -> None:
    with pytest.raises(FileNotFoundError):
        open_mapped(without_map_files, MappedArea(4096, 8192, "r-xp", 0, 0, 0, ""))


def test_our_own_program_is_a_file() -> None:
    with open_program(os.getpid()) as file:
        assert file.read(0, 4) == b"\x7fELF"
        assert file.size == Path("/proc/self/exe").stat().st_size


def test_the_same_content_has_one_identity_and_other_content_another(root: Path) -> None:
    def identity() -> tuple[int, ...]:
        with named_files.NamedFiles(root).open("/srv/file") as file:
            return file.identity

    first = identity()
    assert identity() == first
    (root / "srv" / "file").write_text("more of it")
    assert identity() != first
