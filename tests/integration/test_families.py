"""Programs that start others, as servers and scripts do: all of a family is recorded, or it is said what to type."""

from __future__ import annotations

import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from pprofpy.errors import TargetError
from pprofpy.formats.files import read_recording
from pprofpy.model.gil import GilRecord
from pprofpy.target import descendants_of, find_by_name, open_target, procfs, python_processes
from pprofpy.target.children import ChildrenAtWork
from tests.conftest import PROGRAMS, CommandLine, Start, beside_others, wait_until

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


UNRELATED = """
import os, sys, time
def work():
    until = time.thread_time() + 0.003
    while time.thread_time() < until:
        pass
    time.sleep(0.002)
is_child = sys.argv[1:] == ["with a child"] and os.fork() == 0
parent = os.getppid()
if not is_child:
    print("ready", flush=True)
while os.getppid() == parent:
    work()
"""


@beside_others
@pytest.mark.parametrize("command", ["cpu --engine bpf --rate 1000", "gil", "off-cpu", "trace -e getppid -o FILE"])
def test_all_that_a_name_fits_are_one_recording(cli: CommandLine, start: Start, tmp_path: Path, command: str) -> None:
    """Processes that have nothing to do with each other, and what they have started."""
    script, file = tmp_path / f"unrelated-{uuid.uuid4().hex}.py", tmp_path / "recording"
    script.write_text(UNRELATED)
    roots = sorted(start(sys.executable, str(script), *words).pid for words in ((), ("with a child",)))
    everybody = {*roots, *(child for root in roots for child in descendants_of(root))}
    words = command.replace("FILE", str(file)).split()

    done = cli(*words, "-d", "0.5", "--subprocesses", "--name", script.name)

    assert done.returncode == 0, done.stderr
    who = f"2 processes called {script.stem} (pids {roots[0]}, {roots[1]})"
    assert f"recording {who} for 500 ms" in done.stderr
    made = read_recording(str(file if file.exists() else cli.recordings[0]))
    assert made.profile.collection.target == who
    found = {label.value for labels in made.profile.label_sets for label in labels if label.key == "pid"}
    if command == "gil":
        found = {thread.pid for thread in GilRecord.from_recording(made).threads}
    assert len(everybody) == 3
    assert found == everybody


@beside_others
@pytest.mark.parametrize(
    ("shape", "matching", "who"), [("reloader", 2, "child"), ("fork", 3, "2 children"), ("spawn", 1, "2 children")]
)
def test_of_a_master_that_waits_the_command_is_told_that_records_its_children(
    cli: CommandLine, start: Start, shape: str, matching: int, who: str
) -> None:
    """Whether all of them match the name or the master does alone."""
    name = f"shop-{uuid.uuid4().hex}"
    words = (sys.executable, str(PROGRAMS / "shapes.py"), name, shape)
    master = open_target(start(*words, stderr=subprocess.DEVNULL).pid)
    workers = 1 if who == "child" else 2
    wait_until(lambda: len(python_processes(name)) == matching, "all have begun")
    wait_until(lambda: len(busy_children(master.pid)) == workers, "all of its children work")
    family = ChildrenAtWork(master)
    wait_until(lambda: f"{who} of process" in family.remark(10**8), "both have worked once more")
    options = f"--pid {master.pid} --subprocesses"

    if matching == 1:
        assert find_by_name(name, with_children=False) == master
    else:
        with pytest.raises(TargetError, match=f"{matching} Python processes match") as raised:
            find_by_name(name, with_children=False)
        assert f"    {options}: it and its {who}\n" in raised.value.hint
    assert family.remark(10**8).endswith(f"to record the children, too: pprofpy cpu {options}")

    done = cli("cpu", *options.split(), "--engine", "bpf", "--rate", "500", "-d", "0.4")

    assert done.returncode == 0, done.stderr
    pids = {
        next(label.value for label in labels if label.key == "pid")
        for stack, _, labels in read_recording(str(cli.recordings[0])).profile.samples()
        if any(frame.function.name == "shapes.work" for frame in stack)
    }
    assert pids == busy_children(master.pid)


def busy_children(pid: int) -> set[int]:
    """Those that have used more CPU time than it takes to begin."""
    return {child for child in descendants_of(pid) if procfs.stat(child).cpu_ns > 0.2e9}


@pytest.mark.parametrize("command", ["gil", "heap"])
def test_of_several_pythons_that_a_command_starts_none_is_taken_silently(cli: CommandLine, command: str) -> None:
    done = cli(command, "--", "sh", "-c", TWO)

    assert done.returncode == 3
    assert "the command has started 2 Pythons\n" in done.stderr
    assert done.stderr.count("burn.py 0.3\n") == 2
    assert "add --subprocesses" in done.stderr
    assert cli.recordings == []
