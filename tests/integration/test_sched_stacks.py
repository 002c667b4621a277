"""Waits for a CPU by Python stack: they add up to all waits, and name where the thread was and who woke it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder
from pprofpy.model.latency import LatencyRecord, LongWait
from pprofpy.model.profile import Stack
from pprofpy.model.waits import unchain
from tests.conftest import FREE_PYTHONS, PROGRAMS, CommandLine, interpreter
from tests.recorders import latency_record, long_waits

pytestmark = pytest.mark.ebpf


def record(python: str) -> tuple[LatencyRecord, list[LongWait]]:
    """waits.py from its first to its last wait, with each single wait."""
    with subprocess.Popen(
        [python, str(PROGRAMS / "waits.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as program:
        assert program.stdin
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        with SchedRecorder(SchedOptions(Scope(program.pid), threshold_ns=1, stacks=True)) as recorder:
            program.stdin.write("go\n")
            program.stdin.flush()
            json.loads(program.stdout.readline())
            waits = long_waits(recorder)
            recorder.drain()  # its threads have ended
            result = latency_record(recorder.finish())
            waits += recorder.new_long_waits()
        program.kill()
    return result, waits


def names(stack: Stack) -> list[str]:
    return [frame.function.system_name for frame in stack]


@pytest.mark.parametrize("version", ["3.12", *FREE_PYTHONS])
def test_waits_by_stack_add_up_and_name_the_waiter_and_its_waker(version: str) -> None:
    result, waits = record(interpreter(version))

    # All waits are there, to the nanosecond; also in the profile
    for kind in (False, True):
        of_threads = [one.preempted if kind else one.woken for one in result.threads]
        of_stacks = [one for one in result.stacks if one.was_preempted == kind]
        assert sum(one.count for one in of_stacks) == sum(one.count for one in of_threads) > 0
        assert sum(one.total_ns for one in of_stacks) == sum(one.total_ns for one in of_threads)
        assert max(one.max_ns for one in of_stacks) == max(one.max_ns for one in of_threads)
    profile = result.to_profile()
    assert profile.total(1) == sum(one.total_ns for one in result.stacks)

    # Those that read a pipe waited there, woken by the line that writes; those that sleep were woken by no thread
    reading = [one for one in result.stacks if "reads" in names(one.stack) and "writes" in names(one.waker_stack)]
    assert sum(one.count for one in reading) >= 5
    sleeping = [one for one in result.stacks if "naps" in names(one.stack)[:1] and not one.was_preempted]
    assert sum(one.count for one in sleeping if not one.waker_stack) >= 10
    chains = [unchain(stack) for stack, _, _ in profile.samples()]
    assert any("reads" in names(waiter) and "writes" in names(waker) for waiter, waker in chains)

    # And so it is with each single wait
    assert any("reads" in names(one.stack) and "writes" in names(one.waker_stack) for one in waits)


def test_stacks_are_for_one_process(cli: CommandLine) -> None:
    done = cli("sched-latency", "--stacks", "-d", "1")
    assert done.returncode == 2
    assert "--pid" in done.stderr


def test_stacks_are_in_the_table_and_in_the_data(cli: CommandLine) -> None:
    program = "import time\ndef naps():\n    for _ in range(30): time.sleep(0.01)\nnaps()"
    done = cli("sched-latency", "--stacks", "--json", "--", sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    stacks = json.loads(done.stdout)["stacks"]
    naps = [
        one
        for one in stacks
        if one["kind"] == "woken" and one["stack"] and one["stack"][0]["function"] == "<string>.naps"
    ]
    assert sum(one["count"] for one in naps) >= 20
