"""Several processes match: who started whom is shown, and a family may be taken as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from threading import Event

import pytest

from pprofpy import target as targets
from pprofpy.collectors.cpu import CpuEngines
from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.target import procfs
from pprofpy.target.children import ChildrenAtWork
from tests.conftest import Start, wait_until

MASTER = """
import os, sys, time
if sys.argv[2] != "0":
    workers = [os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", sys.argv[3], sys.argv[1], "0", ""])
               for _ in range(2)]
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name() -> str:
    return f"service-{uuid.uuid4().hex}"


def family(start: Start, name: str) -> int:
    """A master with two workers, all with the same name in their command lines."""
    master = start(sys.executable, "-c", MASTER, name, "2", MASTER, stdin=subprocess.PIPE)
    wait_until(lambda: len(targets.python_processes(f"{name} ")) == 3, "its workers run")
    return master.pid


def test_a_parent_comes_first_and_can_be_taken_with_its_children(start: Start, name: str) -> None:
    master = family(start, name)

    with pytest.raises(TargetError, match="3 Python processes match") as raised:
        targets.find_by_name(f"{name} ", with_children=False)

    _, first, *others, offer, offer_of_all = raised.value.hint.split("\n")
    assert first.startswith(f"    --pid {master} ")
    assert [line[:12] for line in others] == ["      --pid "[:12]] * 2
    assert offer == f"    --pid {master} --subprocesses: it and its 2 children"
    assert offer_of_all == "    --subprocesses beside --name: all of them and their children"


def test_a_command_that_records_no_children_does_not_offer_it(start: Start, name: str) -> None:
    family(start, name)

    with pytest.raises(TargetError) as raised:
        targets.find_by_name(f"{name} ")

    assert "--subprocesses" not in raised.value.hint


def test_with_children_a_family_is_one_target(start: Start, name: str) -> None:
    master = family(start, name)

    assert targets.all_by_name(f"{name} ") == targets.open_target(master)


def test_two_families_are_a_group_with_children_and_a_choice_without(start: Start, name: str) -> None:
    masters = sorted([family(start, f"{name}-a"), family(start, f"{name}-b")])

    group = targets.all_by_name(name)

    assert [member.pid for member in group.members] == masters
    program = group.members[0].name
    assert str(group) == f"2 processes called {program} (pids {masters[0]}, {masters[1]})"
    with pytest.raises(TargetError) as raised:
        targets.find_by_name(name, with_children=False)
    assert raised.value.hint.count("it and its 2 children") == 2


def test_what_pyspy_cannot_record_in_one_is_told_with_the_command_for_each(start: Start, name: str) -> None:
    pids = {start(sys.executable, "-c", MASTER, name, "0", "", stdin=subprocess.PIPE).pid for _ in range(2)}

    engines = CpuEngines("py-spy", CpuOptions(subprocesses=True), print)
    with pytest.raises(NotPossibleError) as raised:
        engines.start(targets.all_by_name(name), Event())

    assert "not 2 processes called " in raised.value.message
    commands = raised.value.hint.split("\n")[1:]
    assert {command.strip() for command in commands} == {f"pprofpy cpu --pid {pid} --subprocesses" for pid in pids}


BUSY = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "while True: pass"])
print("ready", flush=True)
time.sleep(3600)
"""


def test_children_that_work_while_their_parent_waits_are_told_with_the_command(start: Start) -> None:
    master = targets.open_target(start(sys.executable, "-c", BUSY).pid)
    (child,) = targets.descendants_of(master.pid)
    try:
        family = ChildrenAtWork(master)
        before_ns = procfs.stat(child).cpu_ns
        assert family.remark(10**12) == ""
        wait_until(lambda: procfs.stat(child).cpu_ns > before_ns + 2 * 10**8, "its child works")
        told = family.remark(10**9)
    finally:
        os.kill(child, signal.SIGKILL)

    assert told.startswith(f"a child of process {master.pid} used ")
    assert told.endswith(f"to record the children, too: pprofpy cpu --pid {master.pid} --subprocesses")
