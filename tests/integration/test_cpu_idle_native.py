"""`pprofpy cpu --idle --native` in the kernel: the C functions that threads wait in, for how long."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pprofpy.collectors.sampling.native import NativeWallRecorder
from pprofpy.collectors.unwind.wholestack import UNKNOWN
from pprofpy.formats.files import read_profile
from pprofpy.model.profile import Profile, Sample
from pprofpy.target import open_target
from tests.conftest import (
    PATIENCE_S,
    PROGRAMS,
    CommandLine,
    Start,
    compiled_library,
    interpreter,
    rounds_until_right,
)
from tests.cpu import (
    VERSIONS,
    by_thread,
    has_written,
    kernel_lies_on_native_on_python,
    names_in,
    poll_until,
    recorder,
    say_go,
    time_ns,
)

pytestmark = [pytest.mark.ebpf, pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")]

UNKNOWN_NAME = UNKNOWN[0].function.name
PROGRAM = str(PROGRAMS / "native_waits.py")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return compiled_library(tmp_path, "native_waits")


@pytest.mark.parametrize("version", VERSIONS)
def test_functions_last_as_long_as_by_the_programs_own_clock(start: Start, library: Path, version: str) -> None:
    def measure() -> list[str]:
        # Given a program that waits in C functions, called by the same line of Python
        program = start(interpreter(version), PROGRAM, str(library), "0.02", stdin=subprocess.PIPE)
        with recorder(1000, NativeWallRecorder) as recording:
            recording.watch(open_target(program.pid))
            recording.window()
            say_go(program)
            poll_until(recording, has_written(program.stdout))
            profile = recording.finish().profile
        # Then we say the same as it does
        wrong = differences(profile, program)
        program.kill()
        return [*wrong, f"{profile.collection.losses}"] if wrong else []

    rounds_until_right(measure)


def differences(profile: Profile, program: subprocess.Popen[str]) -> list[str]:
    """Where we differ from what a program says, and what else is wrong with its main thread."""
    assert program.stdout is not None
    own, wrong = json.loads(program.stdout.readline())["wall_ns"], []
    for function, own_ns in own.items():
        ours_ns = time_ns(profile, program.pid, function)
        if abs(ours_ns - own_ns) > 0.03 * own_ns:
            wrong.append(f"{function} {ours_ns:,} ns instead of {own_ns:,}")
    if abs(time_ns(profile, program.pid) - profile.duration_ns) > 0.001 * profile.duration_ns:
        wrong.append(f"the main thread lasts {time_ns(profile, program.pid):,} ns of {profile.duration_ns:,}")
    return wrong + impossible_stacks(by_thread(profile)[program.pid])


def impossible_stacks(samples: list[Sample]) -> list[str]:
    stacks = [names_in(sample.stack) for sample in samples]
    return [
        f"{stack}"
        for stack in stacks
        for caller in {"first", "second"}.intersection(stack)
        if stack[stack.index(caller) - 1] != "sleeps" or "calls" not in stack[stack.index(caller) :]
    ]


def test_a_thread_without_python_shows_where_it_waits_and_too_many_switches_are_counted(
    start: Start, library: Path
) -> None:
    running = start(sys.executable, PROGRAM, str(library), "0.0001", stdin=subprocess.PIPE)
    wait_until_it_reads(running.pid)
    with recorder(100, NativeWallRecorder) as recording:
        recording.watch(open_target(running.pid))
        recording.window()
        poll_until(recording, lambda: recording.collected().losses.get("native_skipped", 0) > 1000)
        profile = recording.window().profile
        recording.finish()

    (tid,) = set(by_thread(profile)) - {running.pid}
    assert time_ns(profile, tid) == pytest.approx(profile.duration_ns, rel=0.001)
    assert profile.collection.losses["native_skipped"] > 100
    stacks = [names_in(sample.stack) for sample in by_thread(profile)[tid]]
    asleep = [stack for stack in stacks if "sleeps" in stack]
    assert asleep
    assert all(stack[stack.index("sleeps") + 1] == "rests" for stack in asleep), asleep
    assert [UNKNOWN_NAME, "[no Python stack]"] in stacks  # where it is, is not known then; for how long, is
    # Who waited already when we came has no native functions, and says so
    assert time_ns(profile, running.pid, UNKNOWN_NAME) == pytest.approx(profile.duration_ns, rel=0.01)


def wait_until_it_reads(pid: int) -> None:
    """Until a process waits for its standard input."""
    deadline = time.monotonic() + PATIENCE_S
    while not Path(f"/proc/{pid}/syscall").read_text().startswith("0 0x0 "):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_command_takes_the_kernel_engine_for_both(cli: CommandLine, start: Start, library: Path) -> None:
    running = start(sys.executable, PROGRAM, str(library), "0.001", stdin=subprocess.PIPE)

    done = cli("cpu", "--pid", str(running.pid), "-d", "1", "--idle", "--native", "-K")

    assert done.returncode == 0, done.stderr
    assert "engine: eBPF" in done.stderr
    assert "Wall-clock time:" in done.stdout
    profile = read_profile(str(cli.recordings[-1]))
    kernel_lies_on_native_on_python(profile)
