"""What was recorded before pprofpy was killed can be shown: all but the last window."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path

import pytest

from tests.conftest import PROGRAMS, CommandLine, Start, beside_others, interpreter, wait_until
from tests.cut_short import KINDS, WITHOUT_EBPF, kill_one
from tests.hostile.harness import load

COMMANDS = {
    "heap": ["heap", "--sample-bytes", "16k"],
    "cpu": ["cpu"],
    "cpu --idle": ["cpu", "--idle"],
    "cpu --engine py-spy": ["cpu", "--engine", "py-spy"],
    "off-cpu": ["off-cpu"],
    "gil": ["gil"],
    "sched-latency": ["sched-latency", "--stacks"],
    "events": ["events", "-e", "context-switches"],
}


@beside_others
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_recording_can_be_shown(name: str, start: Start, cli: CommandLine) -> None:
    program = start(interpreter("3.11"), str(PROGRAMS / "show.py"))
    recording = cli.start(*COMMANDS[name], "--pid", str(program.pid), "-d", "10m", "--window", "300ms")
    size = 0

    def has_grown() -> bool:
        """Twice: what is shown has more than one window."""
        nonlocal size
        found = [path.stat().st_size for path in cli.recordings if path.suffix == ".spool"]
        grown, size = bool(found) and found[0] > size > 100, max([size, *found])
        return grown

    wait_until(has_grown, "windows are in the spool")
    recording.kill()
    recording.communicate()

    shown = cli("show", "--json")
    listed = json.loads(cli("list-recordings", "--json").stdout)
    topped = cli("top")

    assert (recording.returncode, shown.returncode, topped.returncode) == (-signal.SIGKILL, 0, 0)
    assert json.loads(shown.stdout)["schema"] == f"pprofpy.{COMMANDS[name][0]}"
    assert "cut short" in shown.stdout
    assert "cut short" in topped.stdout
    assert [one["state"] for one in listed["recordings"]] == ["cut short"]


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[] if kind in WITHOUT_EBPF else beside_others) for kind in KINDS],
)
def test_what_a_killed_recording_shows_sums_up_to_the_truth(kind: str, tmp_path: Path) -> None:
    """Of one kill with short windows; `python -m benchmarks.kill_windows` does it often, with those of 8 s."""
    folder = tmp_path / "profiles"
    folder.mkdir()

    outcome = kill_one(kind, folder, random.uniform(2, 3), 0.5, load())

    assert not outcome.wrong, outcome
