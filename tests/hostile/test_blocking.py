"""Targets whose memory or files keep a reader waiting for ever: it ends by itself, and by one Ctrl-C."""

from __future__ import annotations

import subprocess

import pytest

from tests.hostile.conftest import Attack, Hostile
from tests.hostile.recorders import FEW, RECORDERS, Dealer, each_of
from tests.hostile.test_structures import layout_of_system

WAYS = ["memory", "file_memory", "library", "source", "descriptor", "others"]
UNREADABLE = ("does not let itself be read", "has files mapped that a program", "did not begin to sample")


def blocked(way: str, hostile: Hostile) -> subprocess.Popen[str]:
    return hostile("blocked.py", way, layout_of_system(), capabilities=("sys_admin", "sys_ptrace", "dac_override"))


@Dealer(FEW).pairs(WAYS, "way")
def test_it_ends_whatever_is_read(way: str, words: tuple[str, ...], hostile: Hostile, attack: Attack) -> None:
    outcome = attack(blocked(way, hostile), *words, "--pid", "PID", "-d", "500ms")

    assert outcome.status == 0 or any(text in outcome.stderr for text in UNREADABLE), outcome.stderr


@each_of([RECORDERS[2]])
def test_memory_that_blocks_is_reported(words: tuple[str, ...], hostile: Hostile, attack: Attack) -> None:
    outcome = attack(blocked("memory", hostile), *words, "--pid", "PID", "-d", "500ms")

    assert outcome.status == 4
    assert "does not let itself be read" in outcome.stderr


@pytest.mark.parametrize("way", ["memory", "library"])
def test_one_ctrl_c_ends_it(way: str, hostile: Hostile, attack: Attack) -> None:
    attack(blocked(way, hostile), "heap", "--pid", "PID", "-d", "60", interrupt=1.0)


@pytest.mark.parametrize("way", ["library", "others"])
def test_others_are_found_beside_it(way: str, hostile: Hostile, attack: Attack) -> None:
    blocked(way, hostile)
    victim = hostile("names.py")

    outcome = attack(victim, "cpu", "--engine", "py-spy", "--name", f"{hostile.folder}/", "-d", "500ms")

    assert outcome.status == 0, outcome.stderr
