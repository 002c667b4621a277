"""Several processes match: who started whom is shown, and a family may be taken as a whole."""

from __future__ import annotations

import subprocess
import sys
import uuid

import pytest

from pprofpy import target as targets
from pprofpy.errors import TargetError
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

    _, first, *others, offer = raised.value.hint.split("\n")
    assert first.startswith(f"    --pid {master} ")
    assert [line[:12] for line in others] == ["      --pid "[:12]] * 2
    assert offer == f"    --pid {master} --subprocesses: it and its 2 children"


def test_a_command_that_records_no_children_does_not_offer_it(start: Start, name: str) -> None:
    family(start, name)

    with pytest.raises(TargetError) as raised:
        targets.find_by_name(f"{name} ")

    assert "--subprocesses" not in raised.value.hint


def test_with_children_a_family_is_one_target(start: Start, name: str) -> None:
    master = family(start, name)

    assert targets.find_by_name(f"{name} ", with_children=True).pid == master


def test_two_families_are_a_choice_even_with_children(start: Start, name: str) -> None:
    masters = {family(start, f"{name}-a"), family(start, f"{name}-b")}

    with pytest.raises(TargetError, match="6 Python processes") as raised:
        targets.find_by_name(name, with_children=True)

    lines = raised.value.hint.split("\n")[1:]
    assert {int(line.split()[1]) for line in lines if line.startswith("    --pid")} == masters
    with pytest.raises(TargetError) as raised:
        targets.find_by_name(name, with_children=False)
    assert raised.value.hint.count("it and its 2 children") == 2
