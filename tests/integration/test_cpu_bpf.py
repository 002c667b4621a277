"""`pprofpy cpu --engine bpf`: stacks walked in the kernel are those that the program had, whatever it does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pprofpy.collectors.cpython import runtime
from pprofpy.collectors.cpython.objects import Code, ObjectReader
from pprofpy.collectors.cpython.versions import VERSIONS
from pprofpy.collectors.pystacks import processes
from pprofpy.collectors.pystacks import stacks as pystacks
from pprofpy.collectors.pystacks.marks import TRUNCATED
from pprofpy.collectors.sampling.cpu import CpuRecorder
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.formats.files import read_profile
from pprofpy.model.profile import Profile, Sample
from pprofpy.reports import losses
from pprofpy.target import Target, descendants_of, open_target
from tests.conftest import (
    BURN_AND_REST,
    FREE_PYTHONS,
    PROGRAMS,
    CommandLine,
    Start,
    beside_others,
    installed_versions,
    interpreter,
    rounds_until_right,
    wait_until,
)
from tests.cpu import by_thread, differences, installed, let_run, recorder, shares

pytestmark = pytest.mark.ebpf

PYTHON = sys.executable


# -- the numbers are right -----------------------------------------------------------------------------------------


def test_every_function_gets_its_share_on_every_interpreter(start: Start) -> None:
    expected = {"half": 50.0, "third": 30.0, "seventh": 15.0, "rest": 5.0}

    record_until_right(
        installed(start, str(PROGRAMS / "burn.py")),
        lambda version, samples: differences(version, shares(samples), expected, tolerance=1),
    )


def test_so_do_generators_recursion_comprehensions_callbacks_coroutines_and_code_that_is_gone_at_once(
    start: Start,
) -> None:
    expected = {
        "by_generator": 25.0, "by_recursion": 20.0, "by_comprehension": 15.0, "by_callback": 15.0, "by_asyncio": 15.0,
        "by_exec": 10.0,
    }  # fmt: skip

    def check(version: str, samples: list[Sample]) -> list[str]:
        made = [sample for sample in samples if sample.stack[0].function.system_name.startswith("made_")]
        return [
            *differences(version, shares(samples, "cum"), expected, tolerance=1),
            *differences(version, shares(made), {"made_often": 75, "made_rarely": 25}, tolerance=4),
        ]

    record_until_right(installed(start, str(PROGRAMS / "shares.py")), check)


def test_lines_get_their_share_on_every_interpreter(start: Start) -> None:
    source = (PROGRAMS / "lines.py").read_text().splitlines()
    expected = {
        str(number): float(match[1])
        for number, line in enumerate(source, 1)
        if (match := re.search(r"# (\d+)\b", line))
    }
    assert sum(expected.values()) == 100
    versions = installed(start, str(PROGRAMS / "lines.py"))

    def check(version: str, samples: list[Sample]) -> list[str]:
        lines: Counter[str] = Counter()
        for stack, values, _ in samples:
            if stack[0].function.name == "lines.work":
                lines[str(stack[0].line)] += values[0]
        measured = {line: 100 * count / lines.total() for line, count in lines.items()}
        return differences(version, measured, expected, tolerance=1.5)

    record_until_right(versions, check)


def record_until_right(versions: dict[int, str], check: Callable[[str, list[Sample]], list[str]]) -> None:
    """Record all of them at once until nothing is wrong with their samples, or patience ends.

    What has been recorded is summed up: chance evens out, a profiler that is wrong stays wrong.
    """
    found: dict[int, list[Sample]] = {pid: [] for pid in versions}
    with recorder(10_000) as recording:
        for pid in versions:
            recording.watch(open_target(pid))

        def measure() -> list[str]:
            let_run(recording, 1.5)
            profile = recording.window().profile
            wrong = [f"{profile.collection.errors} errors"] if profile.collection.errors > 50 else []
            new = by_thread(profile)
            for pid, version in versions.items():
                found[pid] += new[pid]
                wrong += check(version, found[pid])
            return wrong

        rounds_until_right(measure, rounds=60)


def test_no_stack_is_shown_that_never_was_however_fast_the_paths_change(start: Start) -> None:
    versions = installed(start, str(PROGRAMS / "paths.py"))
    with recorder(10_000) as recording:
        for pid in versions:
            recording.watch(open_target(pid))
        let_run(recording, 3)
        for pid in versions:
            os.kill(pid, signal.SIGSTOP)  # it would take the CPU from those who look at its stacks
        profile = recording.finish().profile

    threads = by_thread(profile)
    for pid, version in versions.items():
        samples = [sample for sample in threads[pid] if sample.stack[-1].function.name != "[no Python stack]"]
        impossible = [names for sample in samples if (names := impossible_path(sample))]
        incomplete = sum(sample.values[0] for sample in samples if is_incomplete(sample))
        assert len(samples) > 100, version
        assert impossible == [], version
        assert incomplete <= 0.002 * sum(sample.values[0] for sample in samples), version


def is_incomplete(sample: Sample) -> bool:
    return any(frame.function.name == "[unreadable]" for frame in sample.stack)


def impossible_path(sample: Sample) -> list[str]:
    """The functions of a stack of paths.py that calls what it never calls, root first; empty if all is well."""
    if is_incomplete(sample):
        return []  # the test counts those
    return impossible_names([frame.function.system_name for frame in reversed(sample.stack)])


def impossible_names(stack: list[str]) -> list[str]:
    """The same of the names of its functions, root first; those that belong to no path may be missing."""
    inner = ("", "<module>", "main", "call_all", "<listcomp>", "_bootstrap", "_bootstrap_inner", "run")
    names = [name for name in (one.rpartition(".")[2] for one in stack) if name not in inner]
    if names and not names[0].startswith(("plain0_", "gen0_", "call0_")):
        return [] if names == ["define"] else names
    kinds = [re.fullmatch(r"([a-z]+)(\d+)_\d", name) for name in names]
    fits = all(match and int(match[2]) == depth and match[1] == kinds[0][1] for depth, match in enumerate(kinds))  # type: ignore[index]
    return [] if fits else names


@pytest.mark.parametrize("rate_hz", [100, 1000])
def test_as_many_samples_are_got_as_asked(rate_hz: int, start: Start) -> None:
    burning = start(PYTHON, str(PROGRAMS / "burn.py"))
    with recorder(rate_hz) as recording:
        recording.watch(open_target(burning.pid))

        def measure() -> list[str]:
            let_run(recording, 3)
            collection = recording.window().profile.collection
            # A thread that does not have the CPU for itself is seen at a chance of its share: that evens out slowly.
            chance = 2 * collection.asked**0.5
            enough = collection.got >= 0.99 * collection.asked - chance
            return [] if enough and collection.got <= 1.02 * collection.asked + chance else [str(collection)]

        rounds_until_right(measure)


def test_a_program_in_step_with_the_clock_is_sampled_in_all_its_phases(start: Start) -> None:
    program = """
import time
def early(end):
    while time.thread_time() < end: pass
def late(end):
    while time.thread_time() < end: pass
print("ready", flush=True)
while True:
    now = time.perf_counter()
    time.sleep((now // 0.01 + 1) * 0.01 - now)
    begin = time.thread_time()  # it may be late, but has all of its CPU time
    early(begin + 0.002)
    late(begin + 0.004)
"""
    beating = start(PYTHON, "-c", program)

    found: list[Sample] = []
    with recorder(100) as recording:
        recording.watch(open_target(beating.pid))

        def measure() -> list[str]:
            let_run(recording, 3)
            found.extend(recording.window().profile.samples())
            return differences("100 Hz", shares(found), {"early": 50, "late": 50}, tolerance=12)

        rounds_until_right(measure)


@pytest.mark.parametrize(
    ("how", "without"),
    [
        ("inside", FREE_PYTHONS),
        ("nested", FREE_PYTHONS),
        # These do not say where a thread is whose state another has made:
        ("borrowed", ("3.8", "3.9", *FREE_PYTHONS)),
        # With one lock for all, one never lets the other have it:
        ("each", ("3.8", "3.9", "3.10", "3.11", "system", *FREE_PYTHONS)),
    ],
)
def test_a_thread_inside_of_another_interpreter_is_there_and_holds_its_lock(
    how: str, without: tuple[str, ...], start: Start
) -> None:
    expected = {"half": 50.0, "third": 30.0, "seventh": 15.0, "rest": 5.0}
    begin_ns: dict[int, int] = {}
    found: defaultdict[int, list[Sample]] = defaultdict(list)
    with recorder(4000, gil=True) as recording:
        versions = installed(start, str(PROGRAMS / "subinterpreters.py"), how, "burn", without=without)
        threads = {thread.tid: pid for pid in versions for thread in open_target(pid).threads()}
        for pid in versions:
            recording.watch(open_target(pid))
            begin_ns[pid] = cpu_time_ns(pid)

        def take_in(profile: Profile) -> None:
            for tid, samples in by_thread(profile).items():
                found[threads[tid]] += samples

        def measure() -> list[str]:
            let_run(recording, 1)
            take_in(recording.window().profile)
            return [
                text
                for pid, version in versions.items()
                for text in differences(version, shares(found[pid]), expected, 8)
            ]

        rounds_until_right(measure, rounds=16)
        used_ns = {pid: cpu_time_ns(pid) - begin_ns[pid] for pid in versions}  # before the end: afterwards it is more
        take_in(recording.finish().profile)

    for pid, version in versions.items():
        entered = [one for one in found[pid] if any("enter" in frame.function.system_name for frame in one.stack)]
        with_lock_ns = sum(one.values[1] for one in found[pid])
        assert sum(one.values[1] for one in entered) <= 0.01 * with_lock_ns, (version, entered[0].stack)
        assert with_lock_ns > 0.8 * used_ns[pid], version


def cpu_time_ns(pid: int) -> int:
    return time.clock_gettime_ns((~pid << 3) | 2)


# -- what programs do ----------------------------------------------------------------------------------------------


def test_frames_that_nuitka_makes_are_seen_wherever_they_lie(start: Start) -> None:
    """With Python functions below them, and without."""
    expected = {"called": ["compiled", "burn", "main", "<module>"], "alone": ["compiled"]}
    hows = {}
    for version in installed_versions(["3.11", "3.12"]):
        layout = json.dumps(asdict(VERSIONS[int(version[0]), int(version[2:])].layout))
        for how in expected:
            hows[start(interpreter(version), str(PROGRAMS / "compiled.py"), layout, how).pid] = how
    with recorder(1000) as recording:
        for pid in hows:
            recording.watch(open_target(pid))
        let_run(recording, 0.7)
        found = by_thread(recording.finish().profile)

    for pid, how in hows.items():
        names = [[frame.function.name.removeprefix("compiled.") for frame in one.stack] for one in found[pid]]
        right = sum(one.values[0] for one, stack in zip(found[pid], names, strict=True) if stack == expected[how])
        assert right > 0.9 * sum(one.values[0] for one in found[pid]) > 0, (how, names)
        assert {one.stack[0].line for one in found[pid] if one.stack[0].function.name == "compiled.compiled"} == {17}


def test_a_stack_that_is_too_deep_keeps_its_leaf_and_says_so(start: Start) -> None:
    program = """
def down(n):
    if n: return down(n - 1)
    bottom()
def bottom():
    while True: pass
print("ready", flush=True)
down(900)
"""
    deep = start(PYTHON, "-c", program)
    with recorder(500) as recording:
        recording.watch(open_target(deep.pid))
        let_run(recording, 1)
        profile = recording.finish().profile

    (sample, *others) = profile.samples()
    assert others == []
    assert [sample.stack[0].function.name, sample.stack[1].function.name] == ["<string>.bottom", "<string>.down"]
    assert sample.stack[-1] == TRUNCATED
    assert len(sample.stack) == 513
    assert profile.collection.truncated == sample.values[0]
    assert f"{sample.values[0]} stacks were deeper than 512 frames." in losses.lines(profile.collection)


def test_threads_that_come_and_go_are_all_counted(start: Start) -> None:
    busy = start(PYTHON, str(PROGRAMS / "come_and_go.py"))

    with recorder(1000) as recording:
        recording.watch(open_target(busy.pid))

        def measure() -> list[str]:
            let_run(recording, 2)
            profile = recording.window().profile
            names = {label.value for labels in profile.label_sets for label in labels if label.key == "thread"}
            lost = profile.collection.asked - profile.collection.got
            wrong = [f"{lost} of {profile.collection.asked} lost"] if lost > 0.02 * profile.collection.asked else []
            wrong += [] if "stays" in names else [f"no thread called stays among {names}"]
            nowhere = shares(list(profile.samples())).get("", 0)
            return wrong + ([f"{nowhere:.1f} % without a Python stack"] if nowhere > 15 else [])

        rounds_until_right(measure)


def test_only_the_holder_of_the_lock_counts_if_that_is_wanted(start: Start) -> None:
    program = """
import threading, hashlib
data = bytes(1 << 24)
def hashing():
    while True: hashlib.sha256(data).digest()   # without the lock
def counting():
    while True: sum(range(1000))
threading.Thread(target=hashing, daemon=True).start()
print("ready", flush=True)
counting()
"""
    both = start(PYTHON, "-c", program)
    measured = {}
    for gil in (False, True):
        with recorder(1000, gil=gil) as recording:
            recording.watch(open_target(both.pid))
            let_run(recording, 1.5)
            measured[gil] = shares(list(recording.finish().profile.samples()))

    assert measured[False]["hashing"] > 10  # nearly half, where there are two CPUs for it
    assert measured[True].get("hashing", 0) < 5
    assert measured[True]["counting"] > 95


def test_a_window_can_be_read_while_the_recording_goes_on(start: Start) -> None:
    burning = start(PYTHON, str(PROGRAMS / "burn.py"))
    with recorder(1000) as recording:
        recording.watch(open_target(burning.pid))
        windows = []
        for _ in range(3):
            let_run(recording, 1.2)
            windows.append(recording.window().profile)
        windows.append(recording.finish().profile)
        whole = sum(window.collection.got for window in windows)

    assert all(window.total(0) > 0 for window in windows[:3])
    assert sum(window.total(0) for window in windows) == whole
    assert all("burn.half" in {function.name for function in window.functions} for window in windows[:3])


def test_stacks_that_were_forgotten_are_learnt_again(start: Start) -> None:
    burning = start(PYTHON, str(PROGRAMS / "burn.py"))
    with recorder(2000) as recording:
        recording.watch(open_target(burning.pid))
        for _ in range(4):
            let_run(recording, 0.6)
            recording.stacks.forget()
        profile = recording.finish().profile

    leaves = shares(list(profile.samples()))
    assert leaves["half"] > 30
    assert "" not in leaves or leaves[""] < 2


def test_code_is_not_read_again_and_again_when_stacks_were_forgotten(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the ring buffer still holds then is of code that the kernel does not send anew."""
    read: Counter[tuple[int, int]] = Counter()
    usual = pystacks._read

    def count(reader: ObjectReader, address: int, fingerprint: int, what: Callable[[bytes], Code]) -> Code | None:
        read[address, fingerprint] += 1
        return usual(reader, address, fingerprint, what)

    monkeypatch.setattr(pystacks, "_read", count)
    paths = start(PYTHON, str(PROGRAMS / "paths.py"))
    with recorder(10_000) as recording:
        recording.watch(open_target(paths.pid))
        for _ in range(4):
            let_run(recording, 0.5)
            time.sleep(0.1)  # thousands of stacks wait in the ring buffer
            recording.stacks.forget()
        recording.finish()

    assert sum(read.values()) < 20


# -- through the command line --------------------------------------------------------------------------------------


def wait_for_beginning(recording: subprocess.Popen[str]) -> None:
    assert recording.stderr is not None
    while "engine: eBPF" not in (line := recording.stderr.readline()):
        assert line


def cpu_time_passes(pid: int, seconds: float) -> Callable[[], bool]:
    """Has a process used so much CPU time from now on?"""
    begin_ns = cpu_time_ns(pid)
    return lambda: cpu_time_ns(pid) - begin_ns > seconds * 1e9


def names_of(cli: CommandLine) -> set[str]:
    return {function.name for function in read_profile(str(cli.recordings[-1])).functions}


def test_it_is_the_engine_of_choice_and_says_so(cli: CommandLine, start: Start) -> None:
    burning = start(PYTHON, *BURN_AND_REST)

    done = cli("cpu", "--pid", str(burning.pid), "-d", "1", "-K", "-v", "--threads")

    assert done.returncode == 0, done.stderr
    assert "engine: eBPF" in done.stderr
    assert re.search(r"memory: \d+ MB of our own at most, \d+ MB of tables in the kernel", done.stderr)
    assert re.search(r"Samples: about \d+ expected, \d+ taken, \d+ late, 0 dropped, 0 truncated, 0 errors", done.stdout)
    assert "burn.half" in done.stdout
    assert re.search(r" MainThread +[\d.]+%  \w+[.\w]*", done.stdout)  # it may be the kernel's, which tells it the time


@beside_others
def test_hostile_names_are_harmless_on_the_screen(cli: CommandLine, start: Start) -> None:
    hostile = start(PYTHON, str(PROGRAMS / "hostile.py"))

    done = cli("cpu", "--pid", str(hostile.pid), "-d", "1", "--threads", "--engine", "bpf")

    profile = read_profile(str(cli.recordings[0]))
    names = {label.value for labels in profile.label_sets for label in labels if label.key == "thread"}
    assert names <= {"MainThread", "evil \n;\x1b[31m<script>alert(1)</script> (x)"}
    assert "/srv/a b;c\n\x1b[31m<script>.py" in {function.filename for function in profile.functions}
    assert "\x1b" not in done.stdout + done.stderr
    assert "evil \\n;\\x1b[31m<script>" in done.stdout


@beside_others
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_is_kept(number: signal.Signals, cli: CommandLine, start: Start) -> None:
    burning = start(PYTHON, str(PROGRAMS / "burn.py"))
    recording = cli.start("cpu", "--pid", str(burning.pid), "-d", "1h", "--engine", "bpf", "-r", "1000")
    wait_for_beginning(recording)
    wait_until(cpu_time_passes(burning.pid, 0.1), "it has burnt CPU time")

    recording.send_signal(number)
    _, messages = recording.communicate()

    assert recording.returncode == 0, messages
    assert "burn.half" in names_of(cli)


@beside_others
def test_a_target_that_ends_keeps_its_names(cli: CommandLine, start: Start) -> None:
    brief = start(PYTHON, str(PROGRAMS / "burn.py"))
    recording = cli.start("cpu", "--pid", str(brief.pid), "-d", "1h", "--engine", "bpf", "-r", "1000")
    wait_for_beginning(recording)
    wait_until(cpu_time_passes(brief.pid, 0.2), "it has burnt CPU time")

    brief.kill()
    table, messages = recording.communicate()

    assert recording.returncode == 0, messages
    assert "The target ended during the recording." in table
    assert {"burn.half", "burn.third", "burn.burn_round"} <= names_of(cli)


@beside_others
@pytest.mark.parametrize("is_collected", [False, True])
def test_a_target_that_ends_while_it_is_sampled_is_an_error_of_ours(
    is_collected: bool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = start(PYTHON, str(PROGRAMS / "burn.py"))

    def end_meanwhile(target: Target) -> runtime.Runtime:
        found = runtime.find_runtime(target)
        brief.kill()
        if is_collected:
            brief.wait()
        else:
            wait_until(lambda: not target.is_alive(), "it is a zombie")
        return found

    monkeypatch.setattr(processes, "find_runtime", end_meanwhile)
    with recorder() as recording, pytest.raises(TargetError, match="has ended"):
        recording.watch(open_target(brief.pid))


@beside_others
def test_a_command_is_recorded_to_its_end(cli: CommandLine) -> None:
    done = cli(
        "cpu", "--engine", "bpf", "-r", "1000", "--", PYTHON, "-c", "def f(n):\n  for i in range(n): pass\nf(10**7)"
    )

    assert done.returncode == 0, done.stderr
    assert "<string>.f" in names_of(cli)
    assert "The target ended during the recording." in done.stdout


@beside_others
def test_children_are_followed_through_fork_and_exec(cli: CommandLine, start: Start) -> None:
    program = """
import os, sys, time
def parent_work():
    end = time.monotonic() + 3600
    while time.monotonic() < end: pass
def child_work(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end: pass
print("ready", flush=True)
sys.stdin.readline()
if os.fork() == 0:
    child_work(1)
    os.execv(sys.executable, [sys.executable, "-c", "def other_work():\\n  while True: pass\\nother_work()"])
parent_work()
"""
    parent = start(PYTHON, "-c", program, stdin=subprocess.PIPE)
    recording = cli.start("cpu", "--pid", str(parent.pid), "-d", "6", "-s", "--engine", "bpf")
    assert parent.stdin is not None
    wait_for_beginning(recording)
    parent.stdin.write("\n")
    parent.stdin.flush()
    _, messages = recording.communicate()

    for child in descendants_of(parent.pid):
        os.kill(child, signal.SIGKILL)
    assert recording.returncode == 0, messages
    assert {"<string>.parent_work", "<string>.child_work", "<string>.other_work"} <= names_of(cli)


@beside_others
def test_children_that_find_no_room_are_counted(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuRecorder, "_sizes", lambda _: {"python_targets": 3})
    code = """
import os, sys
print("ready", flush=True)
sys.stdin.readline()
for _ in range(5):
    if not os.fork():
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""
    parent = start(PYTHON, "-c", code, stdin=subprocess.PIPE)
    assert parent.stdin is not None
    with recorder(children=True) as recording:
        recording.watch(open_target(parent.pid))
        parent.stdin.write("\n")
        parent.stdin.flush()
        wait_until(lambda: len(descendants_of(parent.pid)) == 5, "it has five children")
        losses = recording.finish().profile.collection.losses

    assert losses["python_children_full"] == 3


@beside_others
def test_children_that_are_there_already_are_followed_as_well(cli: CommandLine, start: Start) -> None:
    parent = start(PYTHON, str(PROGRAMS / "family.py"))
    (child,) = (pid for pid in descendants_of(parent.pid) if b"family" in Path(f"/proc/{pid}/cmdline").read_bytes())
    recording = cli.start("cpu", "--pid", str(parent.pid), "-d", "1h", "-s", "--engine", "bpf", "-r", "1000")
    wait_for_beginning(recording)
    for pid in (parent.pid, child):
        wait_until(cpu_time_passes(pid, 0.1), "it has burnt CPU time")

    recording.send_signal(signal.SIGINT)
    _, messages = recording.communicate()

    os.kill(child, signal.SIGKILL)
    assert recording.returncode == 0, messages
    assert {"family.parent_work", "family.child_work"} <= names_of(cli)


@beside_others
def test_a_target_in_another_pid_namespace_is_told_by_our_numbers(cli: CommandLine, start: Start) -> None:
    unshare = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not make namespaces here")
    outer = start(*unshare, PYTHON, str(PROGRAMS / "come_and_go.py"))
    (inner,) = descendants_of(outer.pid)

    done = cli("cpu", "--pid", str(inner), "-d", "2", "-r", "500", "--engine", "bpf")

    assert done.returncode == 0, done.stderr
    profile = read_profile(str(cli.recordings[0]))
    threads = {label.value for labels in profile.label_sets for label in labels if label.key == "thread"}
    assert "come_and_go.burn" in names_of(cli)
    assert "stays" in threads


@beside_others
def test_an_interpreter_that_it_does_not_know_is_refused_or_left_to_pyspy(cli: CommandLine, start: Start) -> None:
    old = start(interpreter("3.7"), *BURN_AND_REST)

    refused = cli("cpu", "--pid", str(old.pid), "-d", "1", "--engine", "bpf")
    assert refused.returncode == 4
    assert "3.7 is not known" in refused.stderr

    done = cli("cpu", "--pid", str(old.pid), "-d", "1")
    assert done.returncode == 0, done.stderr
    assert "engine: py-spy, since" in done.stderr
    assert "The engine is py-spy, since" in done.stdout
    assert "burn.half" in names_of(cli)


@beside_others
def test_killing_pprofpy_leaves_nothing_in_the_kernel_and_the_target_alone(cli: CommandLine, start: Start) -> None:
    burning = start(PYTHON, str(PROGRAMS / "burn.py"))
    recording = cli.start("cpu", "--pid", str(burning.pid), "-d", "1h", "--engine", "bpf")
    wait_for_beginning(recording)

    recording.kill()
    recording.communicate()

    assert open_target(burning.pid).state() in "RS"
    wait_until(cpu_time_passes(burning.pid, 0.01), "the target runs on")


# -- it would rather say nothing than something wrong ---------------------------------------------------------------


@beside_others
def test_structures_that_are_not_where_they_should_be_are_noticed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    burning = start(interpreter("3.12"), str(PROGRAMS / "burn.py"))
    known = VERSIONS[3, 12]
    monkeypatch.setitem(VERSIONS, (3, 12), replace(known, layout=replace(known.layout, frame_previous=16)))

    with pytest.raises(NotPossibleError, match=r"not where those of Python 3\.12 should be"):
        runtime.find_runtime(open_target(burning.pid))


@beside_others
def test_a_walk_that_differs_from_what_is_read_from_outside_ends_the_recording(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    burning = start(PYTHON, str(PROGRAMS / "burn.py"))
    with recorder() as recording:
        recording.watch(open_target(burning.pid))
        monkeypatch.setattr(ObjectReader, "frames", lambda self, thread: [4711])
        with pytest.raises(NotPossibleError, match="not those read from outside"):
            let_run(recording, 20)


@beside_others
def test_the_target_is_never_stopped(start: Start) -> None:
    burning = start(PYTHON, str(PROGRAMS / "burn.py"))
    status = Path(f"/proc/{burning.pid}/status")
    with recorder(1000) as recording:
        recording.watch(open_target(burning.pid))
        states = set()
        for _ in range(200):
            states.add(re.search(r"^State:\s+(\w)", status.read_text(), re.MULTILINE)[1])  # type: ignore[index]
            assert re.search(r"^TracerPid:\s+0$", status.read_text(), re.MULTILINE)
            recording.poll()

    assert states <= {"R", "S"}
