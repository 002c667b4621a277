"""What keeps a target from running is told with its recording: a CPU quota, SIGSTOP; and who has compiled it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest

from pprofpy.collectors.pyspy.recorder import PySpyRecorder
from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.errors import NotPossibleError
from pprofpy.session.circumstances import Circumstances, standstill
from pprofpy.target import Target, open_target, procfs, throttling
from pprofpy.target.compiled import NUITKA_NOTE, is_by_nuitka
from tests.conftest import PROGRAMS, Start, wait_until

V1 = "nr_periods 9\nnr_throttled {count}\nthrottled_time {ns}\n"
V2 = "usage_usec 5\nnr_periods 9\nnr_throttled {count}\nthrottled_usec {us}\n"

PROGRAM = """
#include <stdio.h>
#include <unistd.h>
int main(void) { puts("ready"); fflush(stdout); pause(); puts("%s"); return 0; }
"""


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of all control groups, made up."""
    monkeypatch.setattr(throttling, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def target() -> Target:
    return cast(Target, SimpleNamespace(pid=os.getpid(), state=lambda: "R"))


def throttle(folder: Path, text: str, count: int, ns: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.stat").write_text(text.format(count=count, ns=ns, us=ns // 1000))


@pytest.mark.parametrize(
    ("controllers", "group", "folder", "text"),
    [
        ("", "/pod/app", "pod/app", V2),
        ("", "/pod/app", "pod", V2),
        ("", "/pod", "unified/pod", V2),
        ("cpu,cpuacct", "/docker/7", "cpu,cpuacct/docker/7", V1),
        ("cpu", "/docker/7", "cpu/docker", V1),
    ],
)
def test_a_quota_that_throttled_meanwhile_is_named(
    monkeypatch: pytest.MonkeyPatch, groups: Path, target: Target, controllers: str, group: str, folder: str, text: str
) -> None:
    monkeypatch.setattr(procfs, "control_groups", lambda pid: [("memory", "/m"), (controllers, group)])
    throttle(groups / folder, text, 3, 500_000_000)
    circumstances = Circumstances([target])

    assert circumstances.notes() == ()
    throttle(groups / folder, text, 5, 1_700_000_000)
    monkeypatch.setattr(procfs, "control_groups", lambda pid: [])  # it has ended
    (note,) = circumstances.notes()
    assert note.startswith(f"A CPU quota (of {groups / folder}) throttled its processes 2 times, 1.2 s on all CPUs")


def test_groups_without_a_quota_or_out_of_sight_say_nothing(
    monkeypatch: pytest.MonkeyPatch, groups: Path, target: Target
) -> None:
    monkeypatch.setattr(procfs, "control_groups", lambda pid: [("", "/idle"), ("", "/../other"), ("cpu", "/gone")])
    throttle(groups / "idle", "usage_usec 7\n", 0, 0)
    throttle(groups.parent / "other", V2, 1, 1)

    assert throttling.quotas(target.pid) == {}


def test_a_stopped_process_is_named_as_such_with_the_command_that_lets_it_go_on(start: Start) -> None:
    target = open_target(start(sys.executable, str(PROGRAMS / "sleeper.py")).pid)

    assert standstill(target) == ""
    os.kill(target.pid, signal.SIGSTOP)
    wait_until(lambda: target.state() == "T", "it is stopped")
    remark = f"Process {target.pid} is stopped (state T): nothing of it runs; let it go on: kill -CONT {target.pid}."
    assert Circumstances([target]).notes() == (remark,)
    with (
        PySpyRecorder(CpuOptions(), Event()) as recorder,
        pytest.raises(NotPossibleError, match="is stopped") as raised,
    ):
        recorder.watch(target)
    assert raised.value.hint == f"let it go on first: kill -CONT {target.pid}"


@pytest.mark.parametrize("constant", ["nuitka_module_loader", "nuitka_module_loader_of_others"])
def test_a_program_of_nuitkas_is_told_by_its_constants(start: Start, tmp_path: Path, constant: str) -> None:
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(PROGRAM % constant)
    subprocess.run(["cc", "-o", program, source], check=True)
    target = cast(Target, SimpleNamespace(pid=start(str(program)).pid, state=lambda: "S"))

    is_compiled = constant == "nuitka_module_loader"
    assert is_by_nuitka(target) == is_compiled
    assert Circumstances([target]).remarks == ((NUITKA_NOTE,) if is_compiled else ())
