"""Time off the CPU against the programs' own clocks, and who is said to have woken whom."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from pprofpy.collectors.bpf.processes import Scope
from pprofpy.collectors.offcpu import OffCpuOptions, OffCpuRecorder
from pprofpy.profile import Profile
from tests.integration.sched_reference import needs_ebpf

pytestmark = needs_ebpf

SLEEPER = """
import sys, threading, time
lock = threading.Lock()
print("ready", flush=True); sys.stdin.read(1)
slept = 0
for _ in range(40):
    before = time.perf_counter_ns(); time.sleep(0.02); slept += time.perf_counter_ns() - before
lock.acquire()
blocked = 0
def wait():
    global blocked
    before = time.perf_counter_ns(); lock.acquire(); blocked = time.perf_counter_ns() - before
waiter = threading.Thread(target=wait); waiter.start()
time.sleep(0.3); lock.release(); waiter.join()
print(slept, blocked, waiter.native_id, flush=True); sys.stdin.read(1)
"""


def record_sleeper(**bounds: int) -> tuple[Profile, int, int, int, int]:
    """The profile; the program's pid, the ns that it slept and was blocked by its own clock, the blocked thread."""
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as program:
        assert program.stdin
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        with OffCpuRecorder(OffCpuOptions(Scope(program.pid), **bounds)) as recorder:
            program.stdin.write("g")
            program.stdin.flush()
            slept_ns, blocked_ns, waiter = map(int, program.stdout.readline().split())
            profile = recorder.stop()
        program.kill()
        return profile, program.pid, slept_ns, blocked_ns, waiter


def delays(profile: Profile, *keys: str) -> dict[tuple[object, ...], int]:
    """The delay in ns, summed up by these labels."""
    sums: defaultdict[tuple[object, ...], int] = defaultdict(int)
    for _, (_, delay_ns), labels in profile.samples():
        facts = {label.key: label.value for label in labels}
        sums[tuple(facts.get(key, "") for key in keys)] += delay_ns
    return dict(sums)


def test_blocked_time_is_what_the_programs_own_clock_says() -> None:
    profile, pid, slept_ns, blocked_ns, waiter = record_sleeper()
    by_thread: defaultdict[int, int] = defaultdict(int)
    for stack, (_, delay_ns), labels in profile.samples():
        facts = {label.key: label.value for label in labels}
        names = {frame.function.name for frame in stack}
        if facts["tid"] == waiter and "do_futex" in names:
            by_thread[waiter] += delay_ns
        elif facts["tid"] == pid and names & {"do_nanosleep", "__x64_sys_clock_nanosleep"}:
            by_thread[pid] += delay_ns
    assert profile.collection.dropped == 0
    assert by_thread[waiter] == pytest.approx(blocked_ns, rel=0.01)
    # The 40 sleeps, and the one of 0.3 s while the other thread is blocked (a little longer than its wait).
    assert by_thread[pid] == pytest.approx(slept_ns + blocked_ns, rel=0.01)


def test_a_timer_is_named_as_such_and_a_lock_names_the_thread_that_released_it() -> None:
    profile, pid, _, _, waiter = record_sleeper()
    by_waker = delays(profile, "tid", "state", "waker")
    asleep = {key: value for key, value in by_waker.items() if key[1] == "sleeping"}
    longest_of_main = max((key for key in asleep if key[0] == pid), key=lambda key: asleep[key])
    longest_of_waiter = max((key for key in asleep if key[0] == waiter), key=lambda key: asleep[key])
    assert longest_of_main[2] == "timer/irq"
    assert str(longest_of_waiter[2]).endswith(f"({pid})")


def test_bounds_choose_by_the_whole_time_off_the_cpu() -> None:
    profile, pid, slept_ns, _, waiter = record_sleeper(min_ns=100_000_000)
    by_tid = delays(profile, "tid")
    # The sleeps of 20 ms are out; the long sleep and the long wait are in.
    assert by_tid[pid,] < slept_ns
    assert by_tid[waiter,] >= 290_000_000


def test_a_thread_that_blocks_all_the_time_counts_from_the_start_to_the_end() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as program:
        wait_until_asleep(program.pid)
        with OffCpuRecorder(OffCpuOptions(Scope(program.pid))) as recorder:
            profile = recorder.stop()
        program.kill()
    assert delays(profile, "state") == {("sleeping",): pytest.approx(profile.duration_ns, rel=0.01)}


def wait_until_asleep(pid: int) -> None:
    """Until it reads from its standard input."""
    while True:
        if Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 "):
            return
