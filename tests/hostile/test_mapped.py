"""Files that a target maps so that whoever looks for Python in it is misled, kept waiting, or filled up."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable

import pytest

from tests.conftest import PROGRAMS, Start
from tests.hostile.conftest import Attack
from tests.hostile.recorders import pairs_of

Hostile = Callable[..., subprocess.Popen[str]]

WAYS = ["newline", "fifo", "sparse", "elf", "many", "crowd"]
RECORDERS = [
    ("cpu", "--engine", "bpf", "--threads", "--idle", "--native"),
    ("cpu", "--engine", "py-spy"),
    ("heap", "--engine", "sampling", "--sample-bytes", "64k"),
    ("gil",),
]


@pairs_of(WAYS, RECORDERS, "way")
def test_what_it_maps_misleads_nobody(way: str, words: tuple[str, ...], hostile: Hostile, attack: Attack) -> None:
    attack(hostile("mapped.py", way), *words, "--pid", "PID", "-d", "1")


@pytest.mark.parametrize("way", WAYS)
def test_others_are_found_by_name_beside_it(way: str, hostile: Hostile, attack: Attack, start: Start) -> None:
    name = uuid.uuid4().hex
    hostile("mapped.py", way)
    victim = start(sys.executable, str(PROGRAMS / "sleeper.py"), name)

    outcome = attack(victim, "cpu", "--engine", "py-spy", "--name", name, "-d", "1")

    assert outcome.status == 0, outcome.stderr
    assert f"pid {victim.pid}," in outcome.stderr


@pytest.mark.parametrize("way", WAYS)
def test_others_are_listed_beside_it(way: str, hostile: Hostile, attack: Attack, start: Start) -> None:
    hostile("mapped.py", way)
    start(sys.executable, str(PROGRAMS / "sleeper.py"))
    victim = start(sys.executable, str(PROGRAMS / "sleeper.py"), uuid.uuid4().hex)

    outcome = attack(victim, "cpu", "--engine", "py-spy", "-d", "1")

    assert outcome.status == 3, outcome.stderr
    assert f"--pid {victim.pid}" in outcome.stderr or "more" in outcome.stderr
