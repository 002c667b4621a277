"""Telling Python processes from others, naming them, and never taking pprofpy for a target."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pprofpy import target as targets
from pprofpy.errors import TargetError
from pprofpy.target import choice, process
from tests.conftest import PROGRAMS, Start, interpreter

SLEEPER = str(PROGRAMS / "sleeper.py")


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "system"])
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
