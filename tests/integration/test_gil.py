"""The interpreter lock against the programs' own clocks: who waits how long, who holds it, who blocks whom."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pprofpy.collectors.gil import GilOptions, GilRecorder
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.formats.files import read_profile
from pprofpy.model.gil import WAITS, GilRecord, GilThread
from pprofpy.reports.gil import place_of
from pprofpy.reports.losses import lines
from tests.conftest import (
    FREE_PYTHONS,
    PROGRAMS,
    PYTHONS,
    CommandLine,
    Start,
    beside_others,
    interpreter,
    rounds_until_right,
    wait_until,
)

pytestmark = pytest.mark.ebpf

PROGRAM = str(PROGRAMS / "gil.py")
VERSIONS = (*PYTHONS, *FREE_PYTHONS, "system")
SWITCH_ON = dict.fromkeys(FREE_PYTHONS, ("-X", "gil=1"))
"""Of builds that have no lock if nobody asks for it."""


@dataclass(frozen=True)
class Worker:
    """A thread of the program: what it says of itself, and what was recorded of it."""

    says: dict[str, Any]
    seen: GilThread


def record(version: str, *works: str, seconds: str = "1") -> tuple[GilRecord, list[Worker]]:
    """Run the program with these threads, and record it until they are done."""
    command = [interpreter(version), *SWITCH_ON.get(version, ()), PROGRAM, seconds, *works]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as program:
        assert program.stdin
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        with GilRecorder(GilOptions(Scope(program.pid))) as recorder:
            program.stdin.write("\n")
            output: list[str] = []
            reader = threading.Thread(target=lambda: output.append(program.stdout.readline()))  # type: ignore[union-attr]
            reader.start()
            while reader.is_alive():
                reader.join(0.05)
                recorder.drain()
            found = GilRecord.from_recording(recorder.finish())
        program.kill()
    threads = found.by_tid()
    return found, [Worker(own, threads[own["tid"]]) for own in json.loads(output[0])]


def differing(what: str, seen: float, own: float, tolerance: float = 0.02) -> list[str]:
    """What is wrong, in words."""
    return [] if abs(seen - own) <= tolerance * own else [f"{what}: {seen} seen, {own} by its own clock"]


@pytest.mark.parametrize("version", VERSIONS)
def test_holding_and_waiting_are_what_the_programs_own_clocks_say(version: str) -> None:
    def measure() -> list[str]:
        found, (holder, *waiters) = record(version, "asleep_in_c", "want_it", "want_it")
        wrong = differing("held", holder.seen.held_off_ns, holder.says["held_ns"])
        for waiter in waiters:
            waited_ns = sum(  # not what it waited for while it was only starting
                wait.total_ns
                for wait in found.waits
                if wait.tid == waiter.seen.tid and place_of(wait.stack).startswith("gil.want_it:")
            )
            wrong += differing("waited", waited_ns, waiter.says["wait_ns"])
            wrong += differing("longest", waiter.seen.wait_max_ns, waiter.says["longest_ns"])
            charged_ns = sum(
                block.time_ns
                for block in found.blocks
                if (block.holder, block.waiter) == (holder.seen.tid, waiter.seen.tid)
                and place_of(block.holder_stack).startswith("gil.asleep_in_c:")
                and place_of(block.waiter_stack).startswith("gil.want_it:")
            )
            wrong += differing("blocked by the holder", charged_ns, waiter.says["wait_ns"], 0.05)
        return wrong + lines(found.collection) if wrong else []

    rounds_until_right(measure)


def test_threads_that_compute_hold_the_lock_in_turn() -> None:
    def measure() -> list[str]:  # short: a busy virtual machine hides a few switches a second, and each spoils a round
        found, (one, other) = record("3.12", "compute", "compute", seconds="0.6")
        wrong = []
        for worker, rival in ((one, other), (other, one)):
            wrong += differing("held while running", worker.seen.held_on_ns, worker.says["cpu_ns"], 0.03)
            wrong += differing("waited", worker.seen.wait_ns, rival.seen.held_ns, 0.05)
            average_ns = worker.seen.wait_ns / max(worker.seen.wait_count, 1)
            if not 4_000_000 < average_ns < 12_000_000:  # the holder is asked to let go after 5 ms
                wrong.append(f"a wait took {average_ns} ns on average")
        places = {place_of(hold.stack).partition(":")[0] for hold in found.holds if hold.on_ns > 100_000_000}
        wrong += [] if places == {"gil.spin"} else [f"held in {places}"]
        return wrong + lines(found.collection) if wrong else []

    rounds_until_right(measure, rounds=30)


def test_the_profile_has_each_wait_once_with_the_holder_on_top() -> None:
    def measure() -> list[str]:
        found, (_, waiter) = record("3.11", "asleep_in_c", "want_it", seconds="0.5")
        profile = found.to_profile()
        profile.check_valid()
        assert int(profile.values[:, 1].sum()) == sum(wait.total_ns for wait in found.waits)
        assert int(profile.values[:, 0].sum()) == sum(wait.count for wait in found.waits)
        waited = [
            (values[1], stack)
            for stack, values, labels in profile.samples()
            if ("tid", waiter.seen.tid) in [(label.key, label.value) for label in labels]
        ]
        if not waited:
            return [f"no wait of thread {waiter.seen.tid} was seen", *lines(found.collection)]
        top_ns, longest = max(waited)
        names = [frame.function.system_name or frame.function.name for frame in longest]
        at = names.index(WAITS.function.name)
        wrong = differing("the longest", top_ns, waiter.says["wait_ns"], 0.1)
        if (names[0], names[at + 1]) != ("asleep_in_c", "want_it"):
            wrong.append(f"not the stack of the holder above that of the waiter: {names}")
        return wrong

    rounds_until_right(measure)


@beside_others
def test_a_command_is_recorded_until_it_ends(cli: CommandLine, tmp_path: Path) -> None:
    program = tmp_path / "busy.py"
    program.write_text(
        "import threading, time\n"
        "def spin():\n"
        "    end = time.monotonic() + 1.5\n"
        "    while time.monotonic() < end: pass\n"
        "for thread in [threading.Thread(target=spin) for _ in range(3)]: thread.start()\n"
    )

    done = cli(
        "gil", "--json", "--interval", "200ms", "-o", str(tmp_path / "x.pb.gz"), "--", sys.executable, str(program)
    )

    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert 0.5 < shown["held_share"] <= 1.05
    assert 1 < shown["waiting"] < 2.5  # two of three, but for the time before and after
    assert shown["places"][0]["place"].startswith("busy.spin:")
    assert len(shown["slices"]) >= 5
    assert [str(one) for one in read_profile(str(tmp_path / "x.pb.gz")).sample_types] == [
        "contentions/count",
        "delay/nanoseconds",
    ]


@beside_others
def test_an_interrupt_ends_it_early_and_keeps_what_there_is(cli: CommandLine, start: Start) -> None:
    program = start(sys.executable, PROGRAM, "0.5", "compute", "compute", stdin=subprocess.PIPE)

    recording = cli.start("gil", "--pid", str(program.pid))
    assert recording.stderr
    assert "recording" in recording.stderr.readline()
    assert program.stdin
    assert program.stdout
    program.stdin.write("\n")
    program.stdin.flush()
    program.stdout.readline()  # all that it waits for is over
    recording.send_signal(signal.SIGINT)
    stdout, stderr = recording.communicate()

    assert recording.returncode == 0, stderr
    assert "waited for the GIL in" in stdout
    assert "gil.spin:" in stdout
    assert [path.name.startswith("gil-gil-") for path in cli.recordings] == [True]


@beside_others
def test_a_target_that_ends_meanwhile_ends_the_recording(cli: CommandLine, start: Start) -> None:
    program = start(sys.executable, PROGRAM, "1", "compute", "compute", stdin=subprocess.PIPE)
    recording = cli.start("gil", "--name", f"{PROGRAM} 1 compute")
    assert recording.stderr
    assert "recording" in recording.stderr.readline()
    program.communicate("\n\n")
    stdout, stderr = recording.communicate()

    assert recording.returncode == 0, stderr
    assert "gil.spin:" in stdout


def test_child_processes_have_locks_of_their_own(cli: CommandLine, tmp_path: Path) -> None:
    # Given a program that computes in threads, and so does its child (a fork: its lock has the same address)
    program = tmp_path / "family.py"
    program.write_text(
        "import os, threading, time\n"
        "def spin(end):\n"
        "    while time.monotonic() < end: pass\n"
        "child = os.fork()\n"
        "name = 'younger' if not child else 'elder'\n"
        "threads = [threading.Thread(target=spin, args=(time.monotonic() + 1.5,), name=name) for _ in range(2)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "if child: os.waitpid(child, 0)\n"
    )

    done = cli("gil", "-s", "--json", "-n", "0", "-v", "--", sys.executable, str(program))

    assert done.returncode == 0, done.stderr
    assert "MB of our own at most" in done.stderr
    shown = json.loads(done.stdout)
    waited = [  # the main threads, too, have to wait before they have started the others
        thread for thread in shown["threads"] if thread["wait_ns"] > 100_000_000 and thread["name"] != "MainThread"
    ]
    assert sorted(thread["name"] for thread in waited) == ["elder", "elder", "younger", "younger"]
    assert len({thread["pid"] for thread in waited}) == shown["processes"] == 2
    # Then nobody waits for the other process's lock: as long as a thread waits, its sibling holds it
    profile = read_profile(str(cli.recordings[0]))
    pids = {thread["tid"]: thread["pid"] for thread in shown["threads"]}
    held = [
        (pids[int(holder[1])], labels["pid"])
        for labels in ({label.key: label.value for label in sample.labels} for sample in profile.samples())
        if (holder := re.search(r"\((\d+)\)$", str(labels.get("holder", ""))))
    ]
    assert {waiter for _, waiter in held} == set(pids.values())
    assert all(holder == waiter for holder, waiter in held)


@beside_others
def test_what_is_not_python_is_refused(cli: CommandLine) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        wait_until(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n", "it has started")
        done = cli("gil", "--pid", str(sleeper.pid))
        sleeper.kill()

    assert (done.returncode, done.stdout) == (3, "")
    assert "is not a Python process" in done.stderr


@beside_others
def test_without_privileges_it_says_what_is_missing(cli: CommandLine, start: Start) -> None:
    program = start(sys.executable, PROGRAM, "60", "compute", stdin=subprocess.PIPE)

    done = cli("gil", "--pid", str(program.pid), prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))

    assert done.returncode == 4, done.stderr
    assert "kernel probes need CAP_BPF" in done.stderr
