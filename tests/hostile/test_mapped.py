"""Files that a target maps so that whoever looks for Python in it is misled, kept waiting, or filled up."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable

from tests.conftest import PROGRAMS, Start
from tests.hostile.conftest import Attack
from tests.hostile.recorders import Dealer

Hostile = Callable[..., subprocess.Popen[str]]

WAYS = ["newline", "fifo", "sparse", "elf", "many", "crowd"]
RECORDERS = [
    ("cpu", "--engine", "bpf", "--threads", "--idle", "--native"),
    ("cpu", "--engine", "py-spy"),
    ("heap", "--engine", "sampling", "--sample-bytes", "64k"),
    ("gil",),
]


@Dealer(RECORDERS).pairs(WAYS, "way")
def test_what_it_maps_misleads_nobody(way: str, words: tuple[str, ...], hostile: Hostile, attack: Attack) -> None:
    attack(hostile("mapped.py", way), *words, "--pid", "PID", "-d", "1")


def test_others_are_found_by_name_and_listed_beside_all_of_them(hostile: Hostile, attack: Attack, start: Start) -> None:
    name = uuid.uuid4().hex
    for way in WAYS:
        hostile("mapped.py", way)
    start(sys.executable, str(PROGRAMS / "sleeper.py"))
    victim = start(sys.executable, str(PROGRAMS / "sleeper.py"), name)

    named = attack(victim, "cpu", "--engine", "py-spy", "--name", name, "-d", "500ms")
    listed = attack(victim, "cpu", "--engine", "py-spy", "-d", "500ms")

    assert named.status == 0, named.stderr
    assert f"pid {victim.pid}," in named.stderr
    assert listed.status == 3, listed.stderr
    assert f"--pid {victim.pid}" in listed.stderr or "more" in listed.stderr
