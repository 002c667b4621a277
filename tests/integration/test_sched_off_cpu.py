"""Time off the CPU against the programs' own clocks, and who is said to have woken whom."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.off_cpu import OffCpuOptions, OffCpuRecorder
from pprofpy.model.profile import Profile
from pprofpy.model.sleepers import _SLACK_NS
from pprofpy.reports import off_cpu as report
from pprofpy.reports.losses import lines
from tests.conftest import rounds_until_right, stolen_ns

pytestmark = pytest.mark.ebpf

SLEEPER = """
import json, sys, threading, time
def off_ns():
    return time.perf_counter_ns() - time.thread_time_ns()
lock, done = threading.Lock(), threading.Event()
print("ready", flush=True); sys.stdin.read(1)
begin = off_ns()
for _ in range(40):
    time.sleep(0.02)
lock.acquire()
def wait():
    before = off_ns(); lock.acquire(); own["waiter_off_ns"] = off_ns() - before
    done.set()
waiter = threading.Thread(target=wait)
own = {"short_sleeps_ns": off_ns() - begin}
waiter.start()
time.sleep(0.3); lock.release(); done.wait()
own |= {"main_off_ns": off_ns() - begin, "waiter": waiter.native_id}
print(json.dumps(own), flush=True); sys.stdin.read(1)
"""
"""Knows how long it was off the CPU: whatever the wall clock counts and the thread's CPU clock does not."""


@dataclass(frozen=True)
class Own:
    """What the sleeper says of itself: times off the CPU in ns, and the tid of the thread that waits for the lock."""

    main_off_ns: int
    short_sleeps_ns: int
    waiter_off_ns: int
    waiter: int


def record_sleeper(min_ns: int = 0) -> tuple[Profile, int, Own]:
    """The profile, the program's pid, and what it says of itself."""
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as program:
        assert program.stdin
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        with OffCpuRecorder(OffCpuOptions(Scope(program.pid), min_ns, kernel_stacks=True)) as recorder:
            program.stdin.write("g")
            program.stdin.flush()
            own = Own(**json.loads(program.stdout.readline()))
            profile = recorder.finish().profile
        program.kill()
        return profile, program.pid, own


def delays(profile: Profile, *keys: str) -> dict[tuple[object, ...], int]:
    """The delay in ns, summed up by these labels."""
    sums: defaultdict[tuple[object, ...], int] = defaultdict(int)
    for _, (_, delay_ns), labels in profile.samples():
        facts = {label.key: label.value for label in labels}
        sums[tuple(facts.get(key, "") for key in keys)] += delay_ns
    return dict(sums)


def test_time_off_the_cpu_is_what_the_programs_own_clocks_say() -> None:
    def measure() -> list[str]:
        stolen_before_ns = stolen_ns()
        profile, pid, own = record_sleeper()
        off_ns: defaultdict[object, int] = defaultdict(int)
        for stack, (_, delay_ns), labels in profile.samples():
            facts = {label.key: label.value for label in labels}
            reads_input = any("pipe_read" in frame.function.name for frame in stack)
            off_ns[facts["tid"]] += 0 if reads_input else delay_ns
        if profile.collection.dropped:
            return lines(profile.collection)
        spared_ns = stolen_ns() - stolen_before_ns
        pairs = ("main", off_ns[pid], own.main_off_ns), ("waiter", off_ns[own.waiter], own.waiter_off_ns)
        return [
            f"{name}: {ours_ns:,} ns, not {own_ns:,} ns ({spared_ns:,} ns stolen)"
            for name, ours_ns, own_ns in pairs
            if not own_ns * 0.99 - spared_ns <= ours_ns <= own_ns * 1.01
        ]

    rounds_until_right(measure)


def test_blocked_time_is_told_by_what_it_waited_in() -> None:
    def measure() -> list[str]:
        profile, pid, own = record_sleeper()
        asleep_ns, locked_ns = 0, 0
        for stack, (_, delay_ns), labels in profile.samples():
            facts = {label.key: label.value for label in labels}
            names = {frame.function.name for frame in stack}
            if facts["tid"] == own.waiter and "do_futex" in names:
                locked_ns += delay_ns
            elif facts["tid"] == pid and names & {"do_nanosleep", "__x64_sys_clock_nanosleep"}:
                asleep_ns += delay_ns
        # All that the main thread did off the CPU was sleeping, but for moments
        pairs = ("asleep", asleep_ns, own.main_off_ns), ("locked", locked_ns, own.waiter_off_ns)
        return [
            f"{name}: {ours_ns:,} ns, not {own_ns:,} ns"
            for name, ours_ns, own_ns in pairs
            if ours_ns != pytest.approx(own_ns, rel=0.01)
        ]

    rounds_until_right(measure)


def test_a_timer_is_named_as_such_and_a_lock_names_the_thread_that_released_it() -> None:
    profile, pid, own = record_sleeper()
    by_waker = delays(profile, "tid", "state", "waker")
    asleep = {key: value for key, value in by_waker.items() if key[1] == "sleeping"}
    longest_of_main = max((key for key in asleep if key[0] == pid), key=lambda key: asleep[key])
    longest_of_waiter = max((key for key in asleep if key[0] == own.waiter), key=lambda key: asleep[key])
    assert longest_of_main[2] == "timer/irq"
    assert str(longest_of_waiter[2]).endswith(f"({pid})")


def test_bounds_choose_by_the_whole_time_off_the_cpu() -> None:
    def measure() -> list[str]:
        profile, pid, own = record_sleeper(min_ns=200_000_000)
        by_tid = delays(profile, "tid")
        assert by_tid[own.waiter,] >= 290_000_000
        # The long sleep is in, and the short ones are out (unless one took so long on a busy machine)
        long_ns = own.main_off_ns - own.short_sleeps_ns * 0.99
        return [] if 290_000_000 <= by_tid[pid,] <= long_ns else [f"{by_tid[pid,]:,} of {long_ns:,.0f} ns"]

    rounds_until_right(measure)


def test_a_thread_that_blocks_all_the_time_counts_from_the_start_to_the_end() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        wait_until_asleep(program.pid)
        with OffCpuRecorder(OffCpuOptions(Scope(program.pid))) as recorder:
            profile = recorder.finish().profile
        program.kill()
    assert delays(profile, "state") == {("sleeping",): pytest.approx(profile.duration_ns, rel=0.01)}
    assert delays(profile, "state")["sleeping",] > profile.duration_ns - _SLACK_NS  # or it would not be folded


def wait_until_asleep(pid: int) -> None:
    """Until it reads from its standard input."""
    while True:
        if Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 "):
            return


class TinyRecorder(OffCpuRecorder):
    """With room for few places."""

    def _sizes(self) -> dict[str, int]:
        return super()._sizes() | {"places": 8}


MANY_PLACES = f"""
import time
def naps():
{chr(10).join(["    time.sleep(0.001)"] * 20)}
print("ready", flush=True)
input()
for _ in range(20): naps()
print("done", flush=True)
input()
"""


def test_intervals_that_found_no_room_are_counted_one_by_one() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MANY_PLACES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as program:
        assert program.stdin
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        with TinyRecorder(OffCpuOptions(Scope(program.pid))) as recorder:
            program.stdin.write("go\n")
            assert program.stdout.readline() == "done\n"
            profile = recorder.finish().profile
        program.kill()

    # Each of 400 naps is a sleep and a wait for a CPU; a switch now and then is hidden from all of us
    lost, found = profile.collection.losses["off_cpu_full"], profile.total(0)
    assert lost > 300
    assert found + lost == pytest.approx(2 * 400, rel=0.05)
    console = Console(file=io.StringIO(), width=80)
    report.render(report.build(profile), console)
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"Lost: {lost:,} off-CPU intervals that found no room in the kernel's table\n" in told
