"""`pprofpy cpu --idle` in the kernel: running is sampled, waiting measured, nothing of a thread's time is missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from pprofpy.collectors.kernel import switches
from pprofpy.collectors.sampling.cpu import CpuRecorder
from pprofpy.collectors.sampling.wall import WallRecorder
from pprofpy.formats.files import read_profile
from pprofpy.model.profile import Profile
from pprofpy.model.waits import OFF_CPU
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, CommandLine, Start, installed_versions, interpreter, rounds_until_right
from tests.cpu import (
    VERSIONS,
    by_thread,
    has_written,
    let_run,
    names_in,
    poll_until,
    recorder,
    say_go,
    time_ns,
)

pytestmark = pytest.mark.ebpf

PYTHON = sys.executable
PHASES = ("naps", "needs", "polls", "computes")


# -- the numbers are right -----------------------------------------------------------------------------------------


def test_phases_last_as_long_as_by_the_programs_own_clock_on_every_interpreter(start: Start) -> None:
    pending = installed_versions(VERSIONS)

    def measure() -> list[str]:
        # Given programs whose threads sleep, wait for locks and sockets, and compute
        programs = {
            version: start(interpreter(version), str(PROGRAMS / "phases.py"), stdin=subprocess.PIPE)
            for version in pending
        }
        with recorder(1000, WallRecorder) as recording:
            for program in programs.values():
                recording.watch(open_target(program.pid))
            recording.window()  # from now on all are watched
            for program in programs.values():
                say_go(program)
            for program in programs.values():
                poll_until(recording, has_written(program.stdout))
            profile = recording.finish().profile
        wrong = {version: differences(profile, program) for version, program in programs.items()}
        for program in programs.values():
            program.kill()
        # Then we say the same as they do; those that we do not agree with try again
        pending[:] = [version for version in pending if wrong[version]]
        return [f"{version}: {text}" for version in pending for text in wrong[version]]

    rounds_until_right(measure)


def differences(profile: Profile, program: subprocess.Popen[str]) -> list[str]:
    """Where we differ from what a program says, and what else is wrong with its threads."""
    assert program.stdout is not None
    own = json.loads(program.stdout.readline())
    tids, wrong = own["tids"], []
    for phase in PHASES:
        ours_ns, own_ns = time_ns(profile, tids["main"], phase), own["wall_ns"][phase]
        if abs(ours_ns - own_ns) > 0.02 * own_ns:
            wrong.append(f"{phase} {ours_ns:,} ns instead of {own_ns:,}")
    # It has waited where it was when we came, all the time
    if abs(time_ns(profile, tids["stays"], "stays") - profile.duration_ns) > 0.02 * profile.duration_ns:
        wrong.append(f"stays {time_ns(profile, tids['stays'], 'stays'):,} ns of {profile.duration_ns:,}")
    states = {
        (sample.labels[1].value, sample.stack[0].function.name, sample.labels[-1]) for sample in profile.samples()
    }
    wrong += [f"{leaf} runs" for tid, leaf, last in states if tid == tids["stays"] and last.value != OFF_CPU]
    if not any("computes" in leaf and last.value != OFF_CPU for _, leaf, last in states):
        wrong.append("nobody runs")
    wrong += [
        f"the {thread} thread lasts {time_ns(profile, tids[thread])} ns of {profile.duration_ns}"
        for thread in ("main", "stays")
        if abs(time_ns(profile, tids[thread]) - profile.duration_ns) > 0.001 * profile.duration_ns
    ]
    return wrong


HIDDEN = "[unknown: the kernel did not show a switch]"

PING_PONG = """
import os, threading
def plays(inlet, outlet):
    while True:
        os.read(inlet, 1)
        os.write(outlet, b"x")
here, there = os.pipe(), os.pipe()
threading.Thread(target=plays, args=(here[0], there[1]), daemon=True).start()
os.write(here[1], b"x")
print("ready", flush=True)
plays(there[0], here[1])
"""


def test_nothing_is_missing_however_often_threads_switch(start: Start) -> None:
    playing = start(PYTHON, "-c", PING_PONG)
    with recorder(1000, WallRecorder) as recording:
        recording.watch(open_target(playing.pid))
        let_run(recording, 1)
        windows = [recording.window().profile]
        let_run(recording, 0.3)
        windows.append(recording.finish().profile)

    for profile in windows:
        threads = by_thread(profile)
        assert len(threads) == 2
        assert profile.total(0) > 1000 * len(threads)  # each wait is one
        for tid in threads:
            assert time_ns(profile, tid) == pytest.approx(profile.duration_ns, rel=0.001)
            plays_ns = time_ns(profile, tid, "plays")
            assert plays_ns + time_ns(profile, tid, HIDDEN) == pytest.approx(profile.duration_ns, rel=0.02)


def test_a_hidden_switch_is_noticed_and_what_it_hides_is_blamed_on_nobody(start: Start) -> None:
    burning = start(PYTHON, str(PROGRAMS / "burn.py"))
    with recorder(1000, WallRecorder) as recording:
        recording.watch(open_target(burning.pid))
        before = recording.window().profile.collection.dropped
        # When the kernel has not shown that it runs again
        poll_until(recording, lambda: takes_for_waiting(recording, burning.pid) and dropped(recording) > before)
        profile = recording.finish().profile

    assert profile.collection.losses["hidden_switches"] > 0
    assert 0 < time_ns(profile, burning.pid, HIDDEN) < profile.duration_ns
    assert time_ns(profile, burning.pid) == pytest.approx(profile.duration_ns, rel=0.05)


def takes_for_waiting(recording: CpuRecorder, tid: int) -> bool:
    """Have the recorder believe that a thread waits."""
    assert isinstance(recording, WallRecorder)
    entry = recording._intervals._threads.get(tid)
    entry["track"]["where"], entry["stack"] = switches.OFF_CPU, 0
    recording._intervals._threads.put(tid, entry)
    return True


def dropped(recording: CpuRecorder) -> int:
    return recording.collected().dropped


# -- what programs do ----------------------------------------------------------------------------------------------

LIVES = """
import os, sys, threading, time
def measured(name):
    before = time.perf_counter_ns()
    naps()
    print(name, time.perf_counter_ns() - before, flush=True)
def naps(): time.sleep(0.2)
def first(): measured("first")
def second(): measured("second")
def child(): measured("child")
print("ready", flush=True)
sys.stdin.readline()
for work in (first, second):
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
if not os.fork():
    child()
    os.execv(sys.executable, [sys.executable, "-c", "import time\\ndef other(): time.sleep(1)\\nother()"])
os.wait()
"""


def test_threads_and_processes_that_begin_and_end_are_counted_for_as_long_as_they_live(start: Start) -> None:
    def measure() -> list[str]:
        program = start(PYTHON, "-c", LIVES, stdin=subprocess.PIPE)
        with recorder(1000, WallRecorder, children=True) as recording:
            recording.watch(open_target(program.pid))
            say_go(program)
            poll_until(recording, lambda: program.poll() is not None)
            profile = recording.finish().profile

        times = times_of_sleepers(profile)
        assert program.stdout is not None
        own = {name: int(own_ns) for name, own_ns in (line.split() for line in program.stdout)}
        wrong = [
            f"{name} {times[name]:,} ns instead of {own_ns:,}"
            for name, own_ns in own.items()
            if abs(times[name] - own_ns) > 0.02 * own_ns
        ]
        if not 0 < times["other"] < 1.1e9:  # a new program counts from when we know its Python
            wrong.append(f"other {times['other']:,} ns")
        if not 0.5 * profile.duration_ns < time_ns(profile, program.pid) <= profile.duration_ns:
            wrong.append(f"the main thread {time_ns(profile, program.pid):,} ns of {profile.duration_ns:,}")
        return wrong

    rounds_until_right(measure)


def times_of_sleepers(profile: Profile) -> Counter[str]:
    """Function -> time that it sleeps."""
    times: Counter[str] = Counter()
    for stack, values, _ in profile.samples():
        names = set(names_in(stack))
        times.update({name: values[1] for name in names if "naps" in names or name == "other"})
    return times


FAMILY = """
import os, sys, time
print("ready", flush=True)
sys.stdin.readline()
def child():
    time.sleep(0.2)
for _ in range(5):
    if not os.fork():
        child()
        os._exit(0)
    os.wait()
print("done", flush=True)
sys.stdin.readline()
"""


def test_processes_that_have_ended_do_not_run_on_and_are_forgotten(start: Start) -> None:
    def measure() -> list[str]:
        # Given children that live for 0.2 s each, and a parent that goes on
        program = start(PYTHON, "-c", FAMILY, stdin=subprocess.PIPE)
        with recorder(1000, WallRecorder, children=True) as recording:
            recording.watch(open_target(program.pid))
            say_go(program)
            poll_until(recording, has_written(program.stdout))
            poll_until(recording, lambda: set(recording.stacks.runtimes) == {program.pid})
            watched = set(recording.stacks.runtimes)
            let_run(recording, 2)
            profile = recording.finish().profile
        threads = by_thread(profile)
        assert watched == {program.pid}
        wrong = [] if len(threads) == 6 else [f"threads {set(threads)}"]
        for tid in set(threads) - {program.pid}:
            if not 0.19e9 < time_ns(profile, tid) < 1e9:
                wrong.append(f"{tid} lasts {time_ns(profile, tid):,} ns")
        return wrong

    rounds_until_right(measure)


# -- through the command line --------------------------------------------------------------------------------------


def test_the_command_measures_waits_in_the_kernel_and_says_so(cli: CommandLine, start: Start) -> None:
    sleeper = start(PYTHON, str(PROGRAMS / "sleeper.py"))

    done = cli("cpu", "--pid", str(sleeper.pid), "-d", "1", "--idle", "--threads", "-K", "-v")

    assert done.returncode == 0, done.stderr
    assert "engine: eBPF" in done.stderr
    assert "this is wall-clock time" in done.stdout
    assert re.search(r"MainThread +[\d.]+%  \w*nanosleep", done.stdout)  # what the kernel does for it
    profile = read_profile(str(cli.recordings[0]))
    assert [str(kind) for kind in profile.sample_types] == ["samples/count", "wall/nanoseconds"]
    assert time_ns(profile, sleeper.pid, "wait_for_ever") == pytest.approx(profile.duration_ns, rel=0.01)


def test_waiting_and_holding_the_lock_at_once_is_refused(cli: CommandLine) -> None:
    done = cli("cpu", "--idle", "--gil", "--engine", "bpf", "--", PYTHON, "-c", "pass")

    assert done.returncode == 2
    assert "--gil counts only running threads, --idle waiting ones too" in done.stderr
