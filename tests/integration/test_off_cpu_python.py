"""Time off the CPU by Python stack: against the programs' own clocks; its reasons; who ended each wait."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pprofpy.collectors import off_cpu
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.off_cpu import OffCpuOptions, OffCpuRecorder
from pprofpy.collectors.pystacks.blocked import BlockedThread, blocked_threads
from pprofpy.formats import decode
from pprofpy.model.profile import Label, Profile, Stack
from pprofpy.model.waits import WOKEN_BY, unchain
from tests.conftest import (
    FREE_PYTHONS,
    PROGRAMS,
    PYTHONS,
    CommandLine,
    Start,
    installed_versions,
    interpreter,
    rounds_until_right,
    stolen_ns,
)

pytestmark = pytest.mark.ebpf

VERSIONS = (*PYTHONS, *FREE_PYTHONS, "system")
WAITS = {
    "naps": "sleep",
    "needs": "lock",
    "reads": "pipe",
    "receives": "socket",
    "polls": "poll",
    "joins": "process",
}
"""What each function of waits.py mostly waits for."""

ENDED_BY = {"needs": "holds", "reads": "writes", "receives": "sends", "polls": "answers"}
"""Whose function ends these waits."""


@dataclass(frozen=True)
class Wait:
    """A sample: the Python functions of its stack, leaf-first, and what the labels say."""

    blocked: Stack
    woken_by: Stack
    time_ns: int
    labels: dict[str, Any]

    @property
    def functions(self) -> list[str]:
        return [frame.function.system_name or frame.function.name for frame in self.blocked]

    def line_in(self, function: str) -> int:
        return next((frame.line for frame in self.blocked if frame.function.system_name == function), 0)


@dataclass(frozen=True)
class Account:
    """A program's own account beside our recording of it."""

    own: dict[str, Any]
    waits: list[Wait]
    stolen_ns: int

    def time_ns(self, function: str, reason: str = "", line: int = 0) -> int:
        """Time off the CPU in a function, for a reason, at a line."""
        return sum(
            one.time_ns
            for one in self.waits
            if function in one.functions and reason in ("", one.labels["reason"]) and line in (0, one.line_in(function))
        )


def record(versions: list[str]) -> dict[str, Account]:
    """Run waits.py on each of these interpreters, one after the other, and record all of them at once."""
    with ExitStack() as stack:
        programs = {version: stack.enter_context(waiting_program(interpreter(version))) for version in versions}
        stack.enter_context(a_reader())  # it waits as they do at first, but runs no Python
        # They are children of ours: so one recording can watch them all.
        scope = Scope(os.getpid(), children=True)
        recorder = stack.enter_context(OffCpuRecorder(OffCpuOptions(scope, wakers=True)))
        before_ns = stolen_ns()
        own = {version: work(program, recorder) for version, program in programs.items()}
        profile = recorder.finish().profile
        taken_ns = stolen_ns() - before_ns
        waits = {version: waits_of(profile, program.pid) for version, program in programs.items()}
        return {version: Account(own[version], waits[version], taken_ns) for version in versions}


@contextmanager
def a_reader() -> Iterator[None]:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE):  # which is closed at the end
        yield


@contextmanager
def waiting_program(python: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [python, str(PROGRAMS / "waits.py"), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as program:
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        yield program
        program.kill()


def work(program: subprocess.Popen[str], recorder: OffCpuRecorder) -> dict[str, Any]:
    """Let the program do its work; returns its own account."""
    assert program.stdin
    assert program.stdout
    program.stdin.write("go\n")
    program.stdin.flush()
    while not select.select([program.stdout], [], [], 0.05)[0]:
        recorder.drain()
    account: dict[str, Any] = json.loads(program.stdout.readline())
    return account


def waits_of(profile: Profile, pid: int) -> list[Wait]:
    waits = []
    for stack, (_, time_ns), labels in profile.samples():
        facts = {label.key: label.value for label in labels}
        if facts["pid"] == pid:
            waits.append(Wait(*unchain(stack), time_ns, facts))
    return waits


# -- times, reasons and wakers, on every interpreter ------------------------------------------------------------------


def test_times_by_stack_and_line_are_those_of_the_programs_own_clocks() -> None:
    pending = installed_versions(VERSIONS)

    def measure() -> list[str]:
        # Given programs on all interpreters that know how long they were off the CPU, and where
        accounts = record(pending)

        # Then we say the same: for each function, and for each line of one with two waits; the others try again
        wrong = {version: differences(account) + mistakes(account) for version, account in accounts.items()}
        pending[:] = [version for version in pending if wrong[version]]
        return [f"{version}: {text}" for version in pending for text in wrong[version]]

    rounds_until_right(measure)


def test_a_thread_that_sleeps_inside_of_another_interpreter_is_seen_there(start: Start) -> None:
    ways = list(product(installed_versions(VERSIONS), ("inside", "nested", "borrowed")))
    untold = {(version, "borrowed") for version in ("3.8", "3.9")}  # whose state another thread has made
    words = {way: (interpreter(way[0]), str(PROGRAMS / "subinterpreters.py"), way[1], "sleep") for way in ways}
    pids = {way: start(*words[way]).pid for way in ways if way not in untold}

    def measure() -> list[str]:
        with OffCpuRecorder(OffCpuOptions(Scope(os.getpid(), children=True))) as recorder:
            poll_for(recorder, 0.5)
            profile = recorder.finish().profile
        wrong = []
        for way, pid in pids.items():
            slept = Counter[str]()
            for one in waits_of(profile, pid):
                if one.labels["reason"] == "sleep":
                    slept[" ".join(one.functions)] += one.time_ns
            if slept["[sleep] sleep_there <module>"] < 0.98 * slept.total() or not slept:
                wrong.append(f"{way}: {slept}")
        return wrong

    rounds_until_right(measure)


def poll_for(recorder: OffCpuRecorder, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        recorder.poll()
        time.sleep(0.05)


def differences(account: Account) -> list[str]:
    """Where our times differ by more than 2 percent from the program's own."""
    figures = [(name, account.time_ns(name), own_ns) for name, own_ns in account.own["off_cpu_ns"].items()]
    by_line = account.own["lines"].items()
    figures += [(f"line {line}", account.time_ns("naps", line=int(line)), own_ns) for line, own_ns in by_line]
    return [
        f"{name}: {ours_ns:,} ns, not {own_ns:,} ns"
        for name, ours_ns, own_ns in figures
        if not own_ns * 0.98 - account.stolen_ns <= ours_ns <= own_ns * 1.02
    ]


def mistakes(account: Account) -> list[str]:
    """Where we name another reason, or another waker, than it really was."""
    return [
        *(text for function, reason in WAITS.items() if (text := mistaken_reason(account, function, reason))),
        *(text for function, waker in ENDED_BY.items() if (text := mistaken_waker(account, function, waker))),
        *mistaken_start(account),
        *mistaken_timers(account),
        *mistaken_burns(account),
    ]


def mistaken_reason(account: Account, function: str, reason: str) -> str:
    """Of the time blocked: on a busy machine threads wait for a CPU as well, and for the interpreter lock."""
    blocked_ns = account.time_ns(function) - account.time_ns(function, "run queue") - account.time_ns(function, "GIL")
    share = account.time_ns(function, reason) / (blocked_ns or 1)
    return "" if share > 0.98 else f"only {share:.0%} of {function} waits for {reason}"


def mistaken_waker(account: Account, function: str, waker: str) -> str:
    """The longest wait is ended by the stack of the right thread, at the line that ends it."""
    waits = [one for one in account.waits if function in one.functions]
    if not waits:
        return f"{function} does not wait"
    longest = max(waits, key=lambda one: one.time_ns)
    names = [frame.function.system_name for frame in longest.woken_by]
    ended_by = longest.labels.get("waker", "nobody")
    if ended_by.split(" in ")[0].endswith(f"({account.own['tids'][waker]})") and waker in names:
        return ""
    return f"{function} is ended by {ended_by} in {names}"


def mistaken_start(account: Account) -> list[str]:
    """Before the recording began, the program was waiting for its go already: that is read from outside."""
    text = (PROGRAMS / "waits.py").read_text().splitlines()
    line = text.index("sys.stdin.readline()") + 1
    before = [one for one in account.waits if one.functions[1:] == ["<module>"] and one.labels["reason"] == "pipe"]
    return [] if line in [one.line_in("<module>") for one in before] else [f"nothing waits at line {line} at first"]


def mistaken_timers(account: Account) -> list[str]:
    """Sleeps end by a timer; nobody else gets the blame. Those whose end was hidden have nobody to blame."""
    sleeps = [one for one in account.waits if one.labels["reason"] == "sleep"]
    blamed = {one.labels["waker"] for one in sleeps if "waker" in one.labels}
    return [f"a sleep is ended by {waker}" for waker in blamed - {"timer/irq"}]


def mistaken_burns(account: Account) -> list[str]:
    """Two that burn wait for the interpreter lock, or for a CPU, and for nothing else."""
    time_ns = account.time_ns("burns") or 1
    share = (account.time_ns("burns", "GIL") + account.time_ns("burns", "run queue")) / time_ns
    return [] if share > 0.98 else [f"{share:.0%} of burns is the interpreter lock or the run queue"]


# -- the command -------------------------------------------------------------------------------------------------------


def test_chains_as_data_and_as_a_picture(cli: CommandLine, tmp_path: Path) -> None:
    # Given a program that is found by its name
    mark = f"mark-{uuid4()}"
    picture = tmp_path / "waits.svg"
    with waiting_program(sys.executable, mark) as program:
        words = ("off-cpu", "--name", mark, "-d", "60", "--wakers", "--json", "-N", "0", "-o", str(picture))
        recording = cli.start(*words)
        wait_for_line(recording, "recording")
        own = let_work(program)
        # When the user ends the recording
        recording.send_signal(signal.SIGINT)
        out, err = recording.communicate(timeout=60)
    assert recording.returncode == 0, err

    # Then the data has a chain from the lock that was needed to the line that gave it back
    chains = json.loads(out)["chains"]
    needed = max((one for one in chains if named(one["blocked"], "needs")), key=lambda one: one["total_ns"])
    assert needed["reason"] == "lock"
    assert named(needed["woken_by"], "holds")
    assert needed["total_ns"] == pytest.approx(own["off_cpu_ns"]["needs"], rel=0.1)
    # And the picture has both stacks, and what is between them
    assert {"waits.needs", "waits.holds", "[lock]", "--- woken by ---", "[timer/irq]"} <= texts(picture.read_text())
    # And the recording itself is kept as well
    (kept,) = cli.recordings
    assert any(WOKEN_BY in stack for stack, _, _ in decode(kept.read_bytes()).samples())


def test_a_command_and_its_children_until_it_ends(cli: CommandLine) -> None:
    program = """
import subprocess, sys, os
def starts(): subprocess.run([sys.executable, "-c", "import time\\ndef naps(): time.sleep(0.4)\\nnaps()"])
starts()
if not os.fork():
    import time
    def dozes(): time.sleep(0.3)
    dozes(); os._exit(0)
os.wait()
"""
    done = cli("off-cpu", "--subprocesses", "--json", "-N", "0", "--", sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    places = json.loads(done.stdout)["places"]
    times = Counter({(one["place"].split(":")[0], one["reason"]): 0 for one in places})
    for one in places:
        times[one["place"].split(":")[0], one["reason"]] += one["total_ns"]
    # Then a child that became another program has its stacks, and so has one that did not
    # (a timer is late if the machine's host has taken the CPU away)
    assert 3.9e8 < times["<string>.naps", "sleep"] < 8e8
    assert 2.9e8 < times["<string>.dozes", "sleep"] < 6e8
    assert times["<string>.starts", "process"] > 4e8


def test_kernel_stacks_lie_on_top_of_pythons_if_they_are_wanted(cli: CommandLine) -> None:
    # The first nap may begin before anybody looks: of that one, only the function that waits may be known.
    program = "import time\ndef naps():\n    for _ in range(20): time.sleep(0.1)\nnaps()"
    done = cli("off-cpu", "-K", "--", sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    profile = decode(cli.recordings[0].read_bytes())
    asleep = [sample for sample in profile.samples() if Label("state", "sleeping") in sample.labels]
    stacks = [[frame.function.name for frame in sample.stack] for sample in asleep]
    found = [names for names in stacks if "<string>.naps" in names]
    assert found, stacks
    assert any("__x64_sys_clock_nanosleep" in names[: names.index("<string>.naps")] for names in found), found
    assert not any("[sleep]" in names for names in found), found


NAMED = """
import threading, time
def naps():
    for _ in range(3): time.sleep(0.4)
first = threading.Thread(target=naps, name="the first")
first.start(); first.join()
second = threading.Thread(target=naps, name="the second (2)")
second.start(); second.join()
"""


@pytest.mark.parametrize("words", [("off-cpu",), ("sched-latency",), ("sched-latency", "--stacks")])
def test_threads_have_the_names_that_the_program_gave_them(cli: CommandLine, words: tuple[str, ...]) -> None:
    # Given threads of which one has ended before the other begins
    done = cli(*words, "-N", "0", "-v", "--", sys.executable, "-c", NAMED)
    assert done.returncode == 0, done.stderr
    assert "MB of our own at most" in done.stderr
    # Then each has its name in the table and in the profile
    profile = decode(cli.recordings[0].read_bytes())
    labels = {label.value for sample in profile.samples() for label in sample.labels if label.key == "thread"}
    assert labels == {"MainThread", "the first", "the second (2)"}
    assert "the first" in done.stdout
    assert "the second" in done.stdout


def test_an_unknown_interpreter_has_the_kernels_stacks_and_this_is_said(cli: CommandLine, start: Start) -> None:
    # Given a Python of which no layout is known
    program = start(interpreter("3.7"), "-c", "print('ready', flush=True); input()", stdin=subprocess.PIPE)
    recording = cli.start("off-cpu", "--pid", str(program.pid), "-d", "60")
    wait_for_line(recording, "recording")
    # When it ends
    program.kill()
    out, err = recording.communicate(timeout=60)
    # Then the recording ends, too, and shows what it can
    assert recording.returncode == 0, err
    assert "no Python stacks, only the kernel's" in err
    assert re.search(r"pipe +\S*pipe_read", out)


# -- helpers -----------------------------------------------------------------------------------------------------------


def wait_for_line(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stderr
    while not process.stderr.readline().startswith(beginning):
        assert process.poll() is None


def let_work(program: subprocess.Popen[str]) -> dict[str, Any]:
    assert program.stdin
    assert program.stdout
    program.stdin.write("go\n")
    program.stdin.flush()
    account: dict[str, Any] = json.loads(program.stdout.readline())
    return account


def named(stack: list[dict[str, Any]], function: str) -> bool:
    return f"waits.{function}" in [frame["function"] for frame in stack]


def texts(svg: str) -> set[str]:
    """The first words of what a picture says of its frames."""
    return {title.split("\n")[0].split(" /")[0].split(" (")[0] for title in re.findall(r"<title>([^<]*)", svg)}


def test_who_is_blocked_already_is_asked_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a tenth of a millisecond a thread: a second where there are ten thousand."""
    asked: list[int] = []

    def ask(pid: int, runtime: Runtime | None, wanted: LabelOptions) -> Iterator[BlockedThread]:
        asked.append(pid)
        return blocked_threads(pid, runtime, wanted)

    monkeypatch.setattr(off_cpu, "blocked_threads", ask)
    process = start(sys.executable, str(PROGRAMS / "paths.py"))

    with OffCpuRecorder(OffCpuOptions(Scope(process.pid))) as recorder:
        recorder.poll()
        recorder.poll()

    assert asked == [process.pid]
