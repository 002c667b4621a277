"""Programs that start others, as servers and scripts do: all of a family is recorded, or it is said what to type."""

from __future__ import annotations

import shlex
import sys

import pytest

from pprofpy.formats.files import read_recording
from tests.conftest import PROGRAMS, CommandLine, beside_others

BURN = f"{shlex.quote(sys.executable)} {shlex.quote(str(PROGRAMS / 'burn.py'))} 0.3"
TWO = f"{BURN} >/dev/null & {BURN} >/dev/null & wait"


@beside_others
@pytest.mark.parametrize(
    "launcher",
    [("sh", "-c", TWO), (sys.executable, "-c", f"import subprocess; subprocess.run({TWO!r}, shell=True)")],
    ids=["shell", "python"],
)
def test_all_that_a_launcher_starts_is_recorded(cli: CommandLine, launcher: tuple[str, ...]) -> None:
    """Through a shell, too, which is no Python."""
    done = cli("cpu", "--subprocesses", "--engine", "bpf", "--rate", "500", "--", *launcher)

    assert done.returncode == 0, done.stderr
    spent: dict[object, int] = {}
    for stack, values, labels in read_recording(str(cli.recordings[0])).profile.samples():
        if any(frame.function.name == "burn.main" for frame in stack):
            pid = next(label.value for label in labels if label.key == "pid")
            spent[pid] = spent.get(pid, 0) + values[1]
    assert len(spent) == 2
    assert all(0.05e9 < cpu_ns < 0.36e9 for cpu_ns in spent.values()), spent


@pytest.mark.parametrize(
    ("command", "remedy"), [("gil", "add --subprocesses"), ("heap", "name one of its processes by --pid")]
)
def test_of_several_pythons_that_a_command_starts_none_is_taken_silently(
    cli: CommandLine, command: str, remedy: str
) -> None:
    done = cli(command, "--", "sh", "-c", TWO)

    assert done.returncode == 3
    assert "the command has started 2 Pythons\n" in done.stderr
    assert done.stderr.count("burn.py 0.3\n") == 2
    assert remedy in done.stderr
    assert cli.recordings == []
