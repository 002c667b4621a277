"""Targets in odd surroundings: namespaces, stopped, frozen, with very many threads, of short lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, CommandLine, interpreter, wait_until
from tests.hostile.conftest import PROGRAMS, Attack, Hostile
from tests.hostile.harness import trouble
from tests.hostile.recorders import FEW, RECORDERS, Dealer, each_of, has_no_probes, with_subprocesses

dealer = Dealer(RECORDERS)

FREEZER = Path("/sys/fs/cgroup/freezer")


def child_of(pid: int) -> int:
    """The only child, or the child's only child, that is a Python program."""
    while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        pid = int(children[0])
    return pid


@dealer.some()
def test_a_target_in_namespaces(words: tuple[str, ...], attack: Attack, hostile: Hostile) -> None:
    outer = hostile("names.py", prefix=("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"))

    outcome = attack(child_of(outer.pid), *words, "--pid", "PID", "-d", "500ms")

    assert outcome.status == 0, outcome.stderr


@dealer.some()
def test_a_target_that_lies_in_namespaces_of_its_own(words: tuple[str, ...], attack: Attack, hostile: Hostile) -> None:
    """FIFOs and endless files lie over all of its files, and nothing of use over /proc."""
    attack(hostile("own_world.py"), *words, "--pid", "PID", "-d", "500ms")


def test_it_does_not_stop_runs_that_look_for_a_target(attack: Attack, hostile: Hostile) -> None:
    program = hostile("own_world.py")

    outcome = attack(program, "cpu", "--engine", "py-spy", "--name", "there is no such program", "-d", "500ms")

    assert outcome.status == 3, outcome.stderr


@dealer.some()
def test_a_target_that_execs_itself_again_and_again(words: tuple[str, ...], attack: Attack) -> None:
    attack("exec_storm.py", *words, "--pid", "PID", "-d", "1", restless=True)


STORMS = {
    "forks": ("fork_storm.py",),
    "forks of programs": ("fork_storm.py", "exec"),
    "exec after exec": ("exec_storm.py",),
}
with_children = Dealer([with_subprocesses(words) for words in RECORDERS if words[0] != "heap"])


@dealer.pairs(list(STORMS)[:2], "storm")
def test_a_storm_of_children_that_are_not_recorded(
    storm: str, words: tuple[str, ...], attack: Attack, hostile: Hostile
) -> None:
    outcome = attack(hostile(*STORMS[storm]), *words, "--pid", "PID", "-d", "1", restless=True)

    assert outcome.status == 0 or "busy" in outcome.stderr, outcome.stderr


@with_children.pairs(list(STORMS), "storm")
def test_a_storm_of_children_that_are_recorded(
    storm: str, words: tuple[str, ...], attack: Attack, hostile: Hostile
) -> None:
    outcome = attack(hostile(*STORMS[storm]), *words, "--pid", "PID", "-d", "1", restless=True)

    assert outcome.status == 0, outcome.stderr


@Dealer([words for words in FEW if words[0] in ("cpu", "off-cpu")]).some()
def test_children_that_come_and_go(words: tuple[str, ...], attack: Attack) -> None:
    attack("stubborn.py", *words, "--pid", "PID", "-d", "1", "-s", restless=True)


@dealer.some()
def test_a_stopped_target_stays_stopped(words: tuple[str, ...], attack: Attack, hostile: Hostile) -> None:
    program = hostile("names.py")
    program.send_signal(signal.SIGSTOP)
    wait_until(lambda: bool(trouble(program.pid)), "it is stopped")

    attack(program, *words, "--pid", "PID", "-d", "500ms", stopped=True)


@pytest.fixture
def frozen(hostile: Hostile) -> Iterator[subprocess.Popen[str]]:
    """A target in a control group that is frozen."""
    if not os.access(FREEZER / "cgroup.procs", os.W_OK):
        pytest.skip("there are no control groups of version 1 with a freezer here")
    program = hostile("names.py")
    group = Path(tempfile.mkdtemp(prefix="pprofpy-", dir=FREEZER))
    try:
        (group / "cgroup.procs").write_text(str(program.pid))
        (group / "freezer.state").write_text("FROZEN")
        wait_until(lambda: (group / "freezer.state").read_text() == "FROZEN\n", "it is frozen")
        yield program
    finally:
        (group / "freezer.state").write_text("THAWED")
        program.kill()
        program.wait()
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "nobody is in the group")
        with suppress(OSError):
            group.rmdir()


@dealer.some()
def test_a_frozen_target(words: tuple[str, ...], attack: Attack, frozen: subprocess.Popen[str]) -> None:
    attack(frozen, *words, "--pid", "PID", "-d", "500ms")


@dealer.some()
def test_one_ctrl_c_ends_it_on_a_frozen_target(
    words: tuple[str, ...], attack: Attack, frozen: subprocess.Popen[str]
) -> None:
    attack(frozen, *words, "--pid", "PID", "-d", "60", interrupt=2.0)


@dealer.some()
def test_thousands_of_threads(words: tuple[str, ...], attack: Attack, hostile: Hostile) -> None:
    program = hostile("many_threads.py", os.environ.get("PPROFPY_TEST_THREADS", "3000"))

    outcome = attack(program, *words, "--pid", "PID", "-d", "1")

    print(f"{' '.join(words)}: {outcome.wall_s:.1f} s, {outcome.peak_bytes >> 20} MB")
    assert outcome.status == 0 or "did not begin to sample" in outcome.stderr, outcome.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")
@each_of([words for words in FEW if has_no_probes(words)])  # the others refuse to work in a pid namespace
def test_a_pid_that_another_process_gets(words: tuple[str, ...], cli: CommandLine) -> None:
    """Only what the first process did is recorded."""
    interpreter("system")
    inside = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable]
    command = [*inside, str(PROGRAMS / "pid_reuse.py"), *words, "--pid", "PID", "-d", "3"]

    done = subprocess.run(command, env=cli.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)

    assert "same pid: True" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    assert "second" not in done.stdout
    assert re_status(done.stdout) in (0, 3), done.stdout


def re_status(said: str) -> int:
    """The recorder's status, which is said last."""
    return int(said.strip().rpartition("status ")[2])
