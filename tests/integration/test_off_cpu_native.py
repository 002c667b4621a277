"""`pprofpy off-cpu --native`: the C functions that threads wait in, between Python's, for how long."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.off_cpu import OffCpuOptions
from pprofpy.collectors.off_cpu_native import NativeOffCpuRecorder
from pprofpy.collectors.unwind.wholestack import UNKNOWN
from pprofpy.formats.files import read_profile
from pprofpy.model.profile import Profile
from tests.conftest import PROGRAMS, CommandLine, Start, compiled_library, interpreter, rounds_until_right
from tests.cpu import by_thread, has_written, kernel_lies_on_native_on_python, names_in, poll_until, say_go, time_ns

pytestmark = [pytest.mark.ebpf, pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")]

PROGRAM = str(PROGRAMS / "native_waits.py")
WAITS = ("first", "second", "on_lock")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return compiled_library(tmp_path, "native_waits")


@pytest.mark.parametrize("version", ["3.8", "3.11", "3.12", "3.15"])
def test_c_functions_wait_as_long_as_by_the_programs_own_clock(start: Start, library: Path, version: str) -> None:
    def measure() -> list[str]:
        # Given a program that waits in C functions, called by the same line of Python
        program = start(interpreter(version), PROGRAM, str(library), "0.02", stdin=subprocess.PIPE)
        with NativeOffCpuRecorder(OffCpuOptions(Scope(program.pid))) as recording:
            say_go(program)
            poll_until(recording, has_written(program.stdout))
            profile = recording.finish().profile
        # Then we say the same as it does, and each wait is where it was
        wrong = differences(profile, program)
        program.kill()
        return wrong

    rounds_until_right(measure)


def differences(profile: Profile, program: subprocess.Popen[str]) -> list[str]:
    assert program.stdout is not None
    own, wrong = json.loads(program.stdout.readline())["wall_ns"], []
    for function in WAITS:
        ours_ns = time_ns(profile, program.pid, function)
        if abs(ours_ns - own[function]) > 0.03 * own[function]:
            wrong.append(f"{function} {ours_ns:,} ns instead of {own[function]:,}")
    for sample in by_thread(profile)[program.pid]:
        stack = names_in(sample.stack)
        for caller in {"first", "second"}.intersection(stack):
            place = stack.index(caller)
            if "sleeps" in stack and (stack[place - 1] != "sleeps" or "calls" not in stack[place:]):
                wrong.append(f"{stack}")
    return wrong


def test_whole_chains_of_waits_and_the_kernel_on_top(cli: CommandLine, start: Start) -> None:
    program = """
import time
def nap(item): return time.sleep(0.002) or item
def sorts(): sorted((1, 2), key=nap)
print("ready", flush=True)
while True: sorts()
"""
    running = start(sys.executable, "-c", program)

    done = cli("off-cpu", "--pid", str(running.pid), "-d", "1", "--native", "-K")

    assert done.returncode == 0, done.stderr
    profile = read_profile(str(cli.recordings[-1]))
    kernel_lies_on_native_on_python(profile)
    stacks = [names_in(sample.stack) for sample in profile.samples()]
    whole = [stack for stack in stacks if "nap" in stack and UNKNOWN[0].function.name not in stack]
    assert whole
    assert all(stack.index("nap") + 2 <= stack.index("sorts") for stack in whole), whole


def test_it_needs_a_process_and_has_no_place_for_awaiting_tasks(cli: CommandLine) -> None:
    of_all, tasks = cli("off-cpu", "--native", "-d", "1"), cli("off-cpu", "-p", "1", "--native", "--tasks")

    assert (of_all.returncode, tasks.returncode) == (2, 2)
    assert "--native needs a process" in of_all.stderr
    assert "--native and --tasks exclude each other" in tasks.stderr
