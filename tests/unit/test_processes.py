"""The registry of a recording's processes: who is in it, from when, and until when."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pprofpy.collectors.pystacks import processes as registry
from pprofpy.collectors.pystacks.processes import Processes
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, Start


class FakeTable(dict[int, Any]):
    def put(self, key: int, value: Any) -> None:
        self[key] = value


class FakeProgram:
    """Has the kernel's list of targets, and follows nothing by itself."""

    def __init__(self) -> None:
        self.targets = FakeTable()
        self.remarks: list[str] = []

    def table(self, name: str, *_: object) -> FakeTable:
        assert name == "python_targets"
        return self.targets

    def attach_raw(self, tracepoint: str, function: str) -> None:
        assert tracepoint.startswith("sched_process_")


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    monkeypatch.setattr(registry, "_LOOK_FOR_ENDED_NS", 0)
    program: Any = FakeProgram()
    found = Processes(program, children=True, on_entry=lambda process: None)
    yield found
    found.close()


def numbers(found: Processes, since: int = 0) -> list[tuple[int, int]]:
    return [(one.number, one.runtime.pid) for one in found.since(since)]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_processes_come_in_order_and_a_child_that_the_kernel_follows_is_one_of_them(
    processes: Processes, start: Start
) -> None:
    parent, child = (start(sys.executable, str(PROGRAMS / "sleeper.py")) for _ in range(2))

    processes.watch(open_target(parent.pid))
    processes.take_fork(child.pid, parent.pid)

    assert numbers(processes) == [(1, parent.pid), (2, child.pid)]
    assert numbers(processes, since=1) == [(2, child.pid)]
    assert processes.runtimes[child.pid].address == processes.runtimes[parent.pid].address


def test_one_that_has_become_another_program_is_new_or_no_longer_there(
    processes: Processes, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = start(sys.executable, str(PROGRAMS / "sleeper.py"))
    processes.watch(open_target(running.pid))

    processes.take_exec(running.pid)
    assert processes.poll() == {}
    assert numbers(processes) == [(2, running.pid)]

    monkeypatch.setattr(registry, "_PATIENCE_NS", 0)
    with subprocess.Popen(["sleep", "60"]) as other:
        processes.take_fork(other.pid, running.pid)
        processes.take_exec(other.pid)
        given_up = processes.poll()
        other.kill()

    assert list(given_up) == [other.pid]
    assert numbers(processes) == [(2, running.pid)]


def test_those_that_have_ended_are_forgotten_at_the_second_look_with_their_descriptors(
    processes: Processes, start: Start
) -> None:
    before = descriptors()
    ending = start(sys.executable, str(PROGRAMS / "sleeper.py"))
    opened = descriptors() - before
    processes.watch(open_target(ending.pid))
    assert descriptors() == before + opened + 1

    ending.kill()
    ending.wait()
    processes.poll()
    assert processes.get(ending.pid)
    processes.poll()

    assert not processes.get(ending.pid)
    assert processes.runtimes == {}
    assert descriptors() == before + opened


def test_one_that_is_no_python_is_refused_at_once_or_tried_for_a_while(processes: Processes) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        assert processes.watch_soon(other.pid, is_patient=True) is None
        refusal = processes.watch_soon(other.pid, is_patient=False)
        other.kill()

    assert refusal is not None
    assert processes.poll() == {}
