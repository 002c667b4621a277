"""Targets whose memory or files keep a reader waiting for ever: it ends by itself, and by one Ctrl-C."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pprofpy.formats.recording import write
from pprofpy.model.recording import Recording
from tests.conftest import CommandLine
from tests.hostile.conftest import Attack, Hostile
from tests.hostile.recorders import EVERYTHING, FEW, RECORDERS, Dealer, each_of
from tests.hostile.test_structures import layout_of_system
from tests.stacks import profile_of

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


PLACES = {
    "profile": ("top", "DEAD/data"),
    "folder": ("top",),
    "list": ("list-recordings",),
    "output": ("export", "PROFILE", "-f", "collapsed", "-o", "DEAD/data"),
    "source": ("list", "work", "PROFILE", "--source-path", "DEAD"),
}


@pytest.mark.parametrize("place", PLACES if EVERYTHING else ["list", "output"])
def test_a_place_of_our_own_on_a_dead_file_system(
    place: str, hostile: Hostile, attack: Attack, cli: CommandLine, tmp_path: Path
) -> None:
    """Its server is gone, or takes no request; so do network file systems."""
    program = blocked("descriptor", hostile)
    profile = tmp_path / "some.pb.gz"
    profile.write_bytes(write(Recording("cpu", profile_of({"main > work": 7}))))
    words = [word.replace("DEAD", f"{hostile.folder}/dead").replace("PROFILE", str(profile)) for word in PLACES[place]]
    extra = {"PPROFPY_DIR": f"{hostile.folder}/dead"} if place in ("folder", "list") else {}
    inside = ("nsenter", f"--mount=/proc/{program.pid}/ns/mnt", f"--wd={tmp_path}")

    outcome = attack(program, *words, prefix=inside, extra=extra, restless=True)

    if place == "source":
        assert outcome.status == 0, outcome.stderr
    else:
        assert "does not answer" in outcome.stderr
        assert outcome.status == (1 if place == "output" else 5)
