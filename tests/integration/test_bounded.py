"""Long recordings: what the profiler keeps in memory does not grow with their length, and nothing gets lost by that.

The program makes stacks that the kernel has never seen, as fast as it can, all of which read the same. Here the limit
from which on stacks are forgotten is low, so that they are forgotten every second or so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pprofpy.collectors import gil
from pprofpy.collectors.events import EventProfileRecorder, choose
from pprofpy.collectors.gil import GilOptions, GilRecorder
from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.kernel.tracepoints import select
from pprofpy.collectors.off_cpu import OffCpuOptions, OffCpuRecorder
from pprofpy.collectors.pystacks import stacks as pystacks
from pprofpy.collectors.pystacks import texts
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder
from pprofpy.collectors.trace import EventRecorder, TraceOptions
from pprofpy.events.log import Batch
from pprofpy.model.gil import GilRecord
from pprofpy.model.profile import Profile, Stack
from pprofpy.session import sums
from tests.conftest import PATIENCE_S, PROGRAMS, rounds_until_right
from tests.recorders import finished, joined, last_events, noun

pytestmark = pytest.mark.ebpf

MANY = 1500
ROUNDS, COUNT = 4, 3000
"""So many times the program does its work, and makes so many new stacks each time."""

DRAIN_S = 0.25


class Working:
    """A program that does some work for each line that comes, and says how much it was."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process
        self.count = self.off_cpu_ns = 0

    def work(self, tick: Callable[[], object], word: str = "go") -> None:
        """Let it do so; `tick` is called every 50 ms."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{word}\n")
        os.set_blocking(self._process.stdout.fileno(), False)
        line = ""
        while not line.endswith("\n"):
            time.sleep(0.05)
            tick()
            line += self._process.stdout.readline()
        _, count, off_cpu_ns = line.split()
        self.count += int(count)
        self.off_cpu_ns += int(off_cpu_ns)


@contextmanager
def ever_new(work: str, count: int = COUNT) -> Iterator[Working]:
    with running([sys.executable, str(PROGRAMS / "ever_new.py"), str(count), work]) as program:
        yield program


@contextmanager
def running(command: list[str]) -> Iterator[Working]:
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield Working(process)
        process.kill()


def reading(recorder: Any) -> Callable[[], None]:
    """What a session does while it records."""
    poll: Callable[[], None] = recorder.poll
    return poll


def own_mb() -> float:
    """The memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def record(program: Working, recorder: Any, tick: Callable[[], object]) -> list[str]:
    """Let the program work for a while, and for as long again; returns what is wrong with memory, in words."""
    grown = []
    for _ in range(ROUNDS):
        program.work(tick)
        grown.append((own_mb(), recorder.memory()))
    half, whole = grown[ROUNDS // 2 - 1], grown[-1]
    known = int(whole[1].split(", ")[2].split()[0].replace(",", ""))
    wrong = [] if whole[0] - half[0] < 3 else [f"memory grows from {half[0]:.0f} MB to {whole[0]:.0f} MB"]
    return wrong + ([] if known < 0.75 * program.count else [f"{known:,} stacks known of {program.count:,}"])


def names(stack: Stack) -> list[str]:
    return [frame.function.system_name or frame.function.name for frame in stack]


@pytest.fixture(autouse=True)
def forget_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pystacks, "_MANY_STACKS", MANY)


def test_times_off_the_cpu() -> None:
    def measure() -> list[str]:
        with ever_new("naps") as program, OffCpuRecorder(OffCpuOptions(Scope(program.pid))) as recorder:
            wrong = record(program, recorder, reading(recorder))
            profile = finished(recorder)
        return wrong + odd_naps(profile, program) + odd_stacks(profile)

    rounds_until_right(measure)


def odd_naps(profile: Profile, program: Working) -> list[str]:
    """Where the naps are not as many, or not as long, as the program's own clock says.

    Each is less than a tenth of a ms: the microseconds that a switch takes, which the kernel charges the thread, show.
    """
    count, lost = naps_in(profile), profile.collection.dropped + profile.collection.errors
    time_ns = sum(values[1] for stack, values, _ in profile.samples() if names(stack)[1:2] == ["naps"])
    wrong = []
    if not 0.99 * program.count - lost <= count <= program.count:
        wrong.append(f"{count:,} naps of {program.count:,}, {lost:,} lost")
    if not 0.9 * program.off_cpu_ns <= time_ns <= 1.1 * program.off_cpu_ns + 10_000 * program.count:
        wrong.append(f"{time_ns:,} ns off the CPU, not {program.off_cpu_ns:,} ns")
    return wrong


def naps_in(profile: Profile) -> int:
    """How many there are."""
    return sum(values[0] for stack, values, _ in profile.samples() if names(stack)[:2] == ["[sleep]", "naps"])


def odd_stacks(profile: Profile) -> list[str]:
    """Stacks of naps that are not the program's one way there."""
    way = ["naps", "fresh", "repeat", "main", "<module>"]
    found = [names(stack) for stack, _, _ in profile.samples()]
    naps = [one[one.index("naps") :] for one in found if "naps" in one]
    return [f"a stack reads {one}" for one in naps if one != way] + ([] if naps else ["no stack of naps"])


def test_events() -> None:
    def measure() -> list[str]:
        chosen = choose(["clock_nanosleep"])
        with ever_new("naps") as program, EventProfileRecorder(chosen, Scope(program.pid)) as recorder:
            wrong = record(program, recorder, reading(recorder))
            profile = finished(recorder)
        # Each is counted once, whatever became of its stack
        assert profile.total(0) == program.count - profile.collection.dropped
        return wrong + odd_stacks(profile)

    rounds_until_right(measure)


def test_traced_events() -> None:
    def measure() -> list[str]:
        found: list[tuple[str, ...]] = []
        texts: dict[int, tuple[str, ...]] = {0: ()}

        def take(batch: Batch) -> None:
            texts.update(batch.stacks)
            found.extend(texts[number] for number in batch.all_calls()["head"]["stack"].tolist())

        with ever_new("naps") as program:
            options = TraceOptions(select(["clock_nanosleep"]), Scope(program.pid), stacks=True)
            with EventRecorder(options) as recorder:
                wrong = record(program, recorder, lambda: take(joined(recorder.read())))
                take(last_events(recorder))
                collection = recorder.collected()
        assert len(found) == program.count - collection.dropped
        # All of them read the same, unless it got lost on its way
        ways = {tuple(frame.split(" (")[0] for frame in stack) for stack in found if stack}
        way = tuple(f"ever_new.{name}" for name in ("naps", "fresh", "repeat", "main", "<module>"))
        wrong += [f"a stack reads {one}" for one in ways if one != way]
        return wrong + ([] if len(texts) < 20 else [f"{len(texts)} different stacks"])

    rounds_until_right(measure)


def test_waits_for_a_cpu() -> None:
    def measure() -> list[str]:
        with ever_new("naps") as program, SchedRecorder(SchedOptions(Scope(program.pid), stacks=True)) as recorder:
            wrong = record(program, recorder, reading(recorder))
            found = finished(recorder)
        # By stack they add up to all waits, to the nanosecond
        waits = [one.waits for one in found.threads]
        assert sum(one.count for one in found.stacks) == sum(one.count for one in waits) > 0.9 * program.count
        assert sum(one.total_ns for one in found.stacks) == sum(one.total_ns for one in waits)
        assert max(one.max_ns for one in found.stacks) == max(one.max_ns for one in waits)
        return wrong + odd_stacks(found.to_profile())

    rounds_until_right(measure)


def test_waits_for_the_interpreter_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pystacks, "_MANY_STACKS", 200)  # fewer stacks are new here

    def measure() -> list[str]:
        with ever_new("computes") as program, GilRecorder(GilOptions(Scope(program.pid))) as recorder:
            wrong = record(program, recorder, reading(recorder))
            found = finished(recorder)
        threads = found.threads
        assert sum(one.count for one in found.waits) == sum(one.wait_count for one in threads) > 0
        assert sum(one.total_ns for one in found.waits) == sum(one.wait_ns for one in threads)
        assert sum(one.on_ns for one in found.holds) == sum(one.held_on_ns for one in threads)
        ways = {tuple(names(one.stack)[:3]) for one in found.waits if "computes" in names(one.stack)}
        wrong += [] if ("computes", "fresh", "repeat") in ways else [f"waits in {ways}"]
        return wrong + [f"{one} in a stack" for one in unreadable(found)]

    rounds_until_right(measure)


def unreadable(found: GilRecord) -> set[str]:
    stacks = [one.stack for one in found.waits] + [one.stack for one in found.holds]
    return {name for stack in stacks for name in names(stack) if name.startswith("[")}


# -- what reads differently each time --------------------------------------------------------------------------------


@pytest.fixture
def nothing_alike(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A program whose stacks have names that no other had, recorded for long, as far as memory can tell; its pid."""
    monkeypatch.setattr(pystacks, "_SOME_STACKS", 10)
    monkeypatch.setattr(pystacks, "_KEEP_NS", 0)
    monkeypatch.setattr(texts, "_WINDOW_NS", 10**8)
    with running([sys.executable, str(PROGRAMS / "all_new.py"), "100", "0"]) as program:
        yield program.pid


def test_numbers_of_stacks_are_forgotten_window_by_window(nothing_alike: int) -> None:
    with EventProfileRecorder(choose(["clock_nanosleep"]), Scope(nothing_alike)) as recorder:
        found: set[tuple[str, ...]] = set()
        known = recorder._stacks._numbered._numbers
        until = time.monotonic() + PATIENCE_S
        while len(found) < 60 or len(known) > 0.5 * len(found):
            assert time.monotonic() < until, f"{len(found)} stacks found, {len(known)} known"
            window = noun(window_after(recorder, 0.3))
            stacks = [tuple(names(stack)) for stack, _, _ in window.samples()]
            found |= {stack for stack in stacks if "nap_" in stack[0]}
            known = recorder._stacks._numbered._numbers


def window_after(recorder: Any, seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        recorder.poll()
        time.sleep(0.05)
    return recorder.window()


def test_events_refer_to_stacks_that_were_told_before(nothing_alike: int) -> None:
    told: dict[int, tuple[str, ...]] = {0: ()}
    options = TraceOptions(select(["clock_nanosleep"]), Scope(nothing_alike), stacks=True)
    with EventRecorder(options) as recorder:
        assert recorder._stacks
        until = time.monotonic() + PATIENCE_S
        while len(told) < 60 or len(recorder._stacks._told) > 0.5 * len(told):
            assert time.monotonic() < until, f"{len(told)} stacks told, {len(recorder._stacks._told)} known"
            time.sleep(0.05)
            batch = joined(recorder.read())
            told.update(batch.stacks)
            assert set(batch.all_calls()["head"]["stack"].tolist()) <= told.keys()
    assert sum(any("nap_" in frame for frame in stack) for stack in told.values()) > 30


# -- threads that come and go ----------------------------------------------------------------------------------------

COME_AND_GO = """
import select, sys, threading, time
lock = threading.Lock()
def serve():
    with lock: time.sleep(1e-4)
print("ready", flush=True)
for line in sys.stdin:
    if line == "rest\\n":
        select.select([], [], [], 1)
        print("done", 0, 0, flush=True)
        continue
    for _ in range(30):
        threads = [threading.Thread(target=serve) for _ in range(10)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    print("done", 300, 0, flush=True)
"""


@pytest.mark.parametrize("kind", ["off-cpu", "gil", "events"])
def test_threads_that_have_ended_are_summed_up_by_name_when_they_are_many(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "MANY", 200)
    monkeypatch.setattr(gil, "MANY_ENDED", 100)
    recorders: dict[str, Callable[[Scope], Any]] = {
        "off-cpu": lambda scope: OffCpuRecorder(OffCpuOptions(scope)),
        "gil": lambda scope: GilRecorder(GilOptions(scope)),
        "events": lambda scope: EventProfileRecorder(choose(["clock_nanosleep"]), scope),
    }
    command = [sys.executable, "-c", COME_AND_GO]
    with running(command) as program, recorders[kind](Scope(program.pid)) as recorder:
        tick = reading(recorder)
        for _ in range(4):
            program.work(tick)
        program.work(tick, "rest")
        found = finished(recorder)
    profile = found.to_profile() if kind == "gil" else found
    labels = [{label.key: label.value for label in sample.labels} for sample in profile.samples()]
    # Then fewer threads are told apart than there were, and nothing is missing
    assert len({one["tid"] for one in labels}) < 0.5 * program.count
    assert any(one["tid"] == 0 for one in labels)
    if kind == "events":
        assert profile.total(0) == program.count - profile.collection.dropped
    if kind == "gil":
        assert sum(one.total_ns for one in found.waits) == sum(one.wait_ns for one in found.threads)


# -- window by window ------------------------------------------------------------------------------------------------


def windows_of(recorder: Any, program: Working) -> list[Any]:
    """Windows while the program works, and what is left in the end."""
    windows, tick = [], reading(recorder)
    for _ in range(4):
        program.work(tick)
        windows.append(noun(recorder.window()))
    return [*windows, finished(recorder)]


def test_windows_of_events_add_up_to_what_the_program_did() -> None:
    chosen = choose(["clock_nanosleep"])
    with ever_new("naps", 1500) as program, EventProfileRecorder(chosen, Scope(program.pid)) as recorder:
        windows = windows_of(recorder, program)
    assert sum(one.total(0) for one in windows) == program.count - sum(one.collection.dropped for one in windows)
    assert sum(1 for one in windows if one.total(0)) >= 2
    assert all(one.time_ns < other.time_ns for one, other in pairwise(windows))


def test_windows_of_times_off_the_cpu_add_up_to_all_of_it() -> None:
    def measure() -> list[str]:
        with ever_new("naps", 1500) as program, OffCpuRecorder(OffCpuOptions(Scope(program.pid))) as recorder:
            windows = windows_of(recorder, program)
        naps = [naps_in(one) for one in windows]
        assert sum(1 for one in naps if one) >= 2
        assert sum(naps) <= program.count
        lost = sum(one.collection.dropped + one.collection.errors for one in windows)
        return [] if sum(naps) >= 0.99 * program.count - lost else [f"{naps} of {program.count:,} naps, {lost} lost"]

    rounds_until_right(measure)


def test_windows_of_the_interpreter_lock_add_up() -> None:
    with ever_new("computes", 1000) as program, GilRecorder(GilOptions(Scope(program.pid))) as recorder:
        windows = windows_of(recorder, program)
    by_thread = sum(thread.wait_ns for one in windows for thread in one.threads)
    by_stack = sum(wait.total_ns for one in windows for wait in one.waits)
    assert by_thread == by_stack > 0
    assert all(min(thread.wait_ns, thread.held_ns, thread.wait_count) >= 0 for one in windows for thread in one.threads)
    ends = [piece.end_ns for one in windows for piece in one.slices]
    assert ends
    assert all(0 <= piece.start_ns < piece.end_ns for one in windows for piece in one.slices)


# -- wake-ups that the kernel shows to nobody -----------------------------------------------------------------------


@pytest.fixture
def without_wake_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the kernel hid all of them; some virtual machines hide a few."""
    attach = Program.attach_raw

    def attach_others(program: Program, tracepoint: str, function: str) -> None:
        if tracepoint != "sched_waking":
            attach(program, tracepoint, function)

    monkeypatch.setattr(Program, "attach_raw", attach_others)


@pytest.mark.usefixtures("without_wake_ups")
def test_a_sleep_whose_end_was_hidden_is_a_sleep_and_not_a_wait_for_a_cpu() -> None:
    def measure() -> list[str]:
        with ever_new("naps", 300) as program, OffCpuRecorder(OffCpuOptions(Scope(program.pid))) as recorder:
            program.work(reading(recorder))
            profile = finished(recorder)
        assert profile.collection.losses["hidden_wake_ups_blocked"] >= 0.9 * program.count
        labels = [{label.key: label.value for label in sample.labels} for sample in profile.samples()]
        assert {one["reason"] for one in labels if one["state"] == "sleeping"} >= {"sleep"}
        assert not any(one.get("waker") for one in labels if one["reason"] == "sleep")
        return odd_naps(profile, program)

    rounds_until_right(measure)


@pytest.mark.usefixtures("without_wake_ups")
def test_no_wait_for_a_cpu_is_made_of_a_hidden_wake_up() -> None:
    with ever_new("naps", 300) as program, SchedRecorder(SchedOptions(Scope(program.pid))) as recorder:
        program.work(reading(recorder))
        found = finished(recorder)
    assert found.collection.losses["hidden_wake_ups"] >= 0.9 * program.count
    assert sum(one.woken.count for one in found.threads) <= 0.1 * program.count
