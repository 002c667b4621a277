"""Telling Python processes from others, naming them, and never taking pprofpy for a target."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pprofpy import target as targets
from pprofpy.errors import ImplausibleTargetError, TargetError
from pprofpy.target import choice, mapped_interpreters, process
from tests.conftest import PROGRAMS, PYTHONS, Start, interpreter

SLEEPER = str(PROGRAMS / "sleeper.py")


@pytest.mark.parametrize("version", [*PYTHONS, "system"])
def test_the_version_is_exact_without_running_anything(version: str, start: Start) -> None:
    path = interpreter(version)
    said = subprocess.check_output([path, "-c", "import platform; print(platform.python_version())"], text=True).strip()

    found = targets.open_target(start(path, SLEEPER).pid).interpreter

    assert (found.implementation, found.version) == ("CPython", said)


LOADER = Path("/lib64/ld-linux-x86-64.so.2")


@pytest.mark.skipif(not LOADER.exists(), reason="glibc's loader is elsewhere")
@pytest.mark.parametrize("options", [[], ["--argv0", "python3", "--inhibit-cache"], ["--library-path", "/nowhere"]])
def test_a_program_that_its_loader_was_told_to_start_is_what_it_is_without(options: list[str], start: Start) -> None:
    plain = targets.open_target(start(interpreter("3.12"), SLEEPER).pid)
    path = plain.interpreter.path if not plain.interpreter.is_shared else str(Path(f"/proc/{plain.pid}/exe").readlink())

    loaded = targets.open_target(start(str(LOADER), *options, path, SLEEPER).pid)

    assert loaded.interpreter == plain.interpreter
    assert loaded.name == plain.name == "sleeper"


def test_this_very_process_is_python_with_its_threads() -> None:
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()

    me = targets.open_target(os.getpid())

    tids = {each.tid for each in me.threads()}
    gate.set()
    thread.join()
    assert {os.getpid(), thread.native_id} <= tids
    assert me.is_alive()
    assert (me.in_other_pid_namespace, me.in_other_mount_namespace) == (False, False)


def test_a_thread_is_refused_in_favour_of_its_process() -> None:
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait)
    thread.start()

    with pytest.raises(TargetError) as refusal:
        targets.open_target(thread.native_id or 0)

    gate.set()
    thread.join()
    assert f"--pid {os.getpid()}" in refusal.value.hint


def test_a_zombie_has_ended(start: Start) -> None:
    process = start(sys.executable, SLEEPER)
    target = targets.open_target(process.pid)

    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert not target.is_alive()
    with pytest.raises(TargetError, match="has ended"):
        targets.open_target(process.pid)


def test_neither_pprofpy_nor_its_parents_are_candidates(start: Start) -> None:
    sleeper = start(sys.executable, SLEEPER)

    found = {target.pid for target in targets.python_processes()}

    assert sleeper.pid in found
    assert not {os.getpid(), os.getppid()} & found


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("/usr/bin/python3", "/srv/app/worker.py", "--queue"), "worker"),
        (("python3.11", "-u", "-X", "dev", "worker.py"), "worker"),
        (("python", "-m", "http.server", "80"), "http.server"),
        (("python", "-c", "pass"), "python"),
        (("/opt/uwsgi", "--ini", "x"), "uwsgi"),
    ],
)
def test_a_process_is_called_what_its_users_call_it(command: tuple[str, ...], name: str) -> None:
    assert process._name(command) == name


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        (("/usr/bin/python3", "/usr/bin/pprofpy", "cpu"), True),
        (("python3", "-m", "pprofpy", "cpu"), True),
        (("sudo", "pprofpy", "cpu"), True),
        (("python3", "worker.py", "--tool", "pprofpy"), False),
    ],
)
def test_another_pprofpy_is_recognized(command: tuple[str, ...], ours: bool) -> None:
    assert choice._is_pprofpy(command) is ours


LIBRARY = "libpython3.11.so.1.0"


def write_library(path: Path, constants: bytes = b"", size: int = 0) -> None:
    """A file with `_PyRuntime` as its only symbol, and constants; whatever is not there is zero."""
    at = 0x1000
    parts = [(2, 0, at, 48, 2), (1, 2, at + 256, max(len(constants), size), 0), (3, 0, at + 48, 12, 0)]
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 128, 0, 64, 56, 1, 64, len(parts), 0)
    head = (head + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, at, at, 4096)).ljust(128, b"\0")
    head += b"".join(
        struct.pack("<IIQQQQIIQQ", 0, kind, flags, 0, offset, length, link, 0, 0, 0)
        for kind, flags, offset, length, link in parts
    )
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 0x11, 0, 1, 0x2000, 8)
    path.write_bytes(head.ljust(at, b"\0") + (symbols + b"\0_PyRuntime\0").ljust(256, b"\0") + constants)
    os.truncate(path, max(path.stat().st_size, at + 256 + size))


@pytest.fixture
def map_here() -> Iterator[Callable[[Path], None]]:
    """Maps files into this very process."""
    kept = []

    def map_file(path: Path) -> None:
        with path.open("rb") as stream:
            kept.append(mmap.mmap(stream.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))

    yield map_file
    for one in kept:
        one.close()


def version_of(path: Path) -> str:
    found = {one.path: one for one in mapped_interpreters(os.getpid())}
    return found[str(path)].version


@pytest.mark.parametrize(
    ("constants", "version"),
    [
        (b"\x003.11.12\0", "3.11.12"),
        (b"3.11.12\0", "3.11.12"),
        (b"\x003.11.12rc1+\0", "3.11.12rc1+"),
        (b"\x0013.11.12\0.3.11.13\0", "3.11"),
        (b"\x003.11.12\0 3.11.13\0", "3.11"),
        (b"\x003.10.12\0", "3.11"),
        (bytes(255) + b"\x003.11.12", "3.11"),
        *((bytes((1 << 20) - cut) + b"3.11.12\0", "3.11.12") for cut in range(10)),
    ],
)
def test_the_exact_version_is_among_the_constants(
    constants: bytes, version: str, tmp_path: Path, map_here: Callable[[Path], None]
) -> None:
    write_library(tmp_path / LIBRARY, constants)
    map_here(tmp_path / LIBRARY)

    assert version_of(tmp_path / LIBRARY) == version


def test_terabytes_of_constants_are_not_read(tmp_path: Path, map_here: Callable[[Path], None]) -> None:
    write_library(tmp_path / LIBRARY, b"\x003.11.12\0", size=8 << 40)
    map_here(tmp_path / LIBRARY)

    assert version_of(tmp_path / LIBRARY) == "3.11"


def test_a_library_that_has_become_a_fifo_is_still_the_mapped_one(
    tmp_path: Path, map_here: Callable[[Path], None]
) -> None:
    write_library(tmp_path / LIBRARY, b"\x003.11.12\0")
    map_here(tmp_path / LIBRARY)
    (tmp_path / LIBRARY).unlink()
    os.mkfifo(tmp_path / LIBRARY)

    assert version_of(tmp_path / LIBRARY) == ("3.11.12" if os.geteuid() == 0 else "3.11")


def test_a_process_with_more_libraries_than_any_is_refused_and_others_are_found(
    tmp_path: Path, map_here: Callable[[Path], None], start: Start
) -> None:
    for number in range(20):
        write_library(tmp_path / f"libpython3.{number}.so")
        map_here(tmp_path / f"libpython3.{number}.so")

    with pytest.raises(ImplausibleTargetError, match="libraries"):
        targets.open_target(os.getpid())
    sleeper = start(sys.executable, SLEEPER)
    assert sleeper.pid in {target.pid for target in targets.python_processes()}


def test_processes_whose_command_line_does_not_match_are_not_looked_into(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    name = uuid.uuid4().hex
    sleeper, opened = start(sys.executable, SLEEPER, name), []

    def note(pid: int) -> targets.Target:
        opened.append(pid)
        return process.open_target(pid)

    monkeypatch.setattr(choice, "open_target", note)

    assert targets.find_by_name(f"{name}$").pid == sleeper.pid
    assert opened == [sleeper.pid]
