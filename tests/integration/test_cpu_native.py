"""`pprofpy cpu --native --engine bpf`: native functions on top of Python's; between them: test_cpu_native_chains.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pprofpy.collectors.pystacks.marks import UNREADABLE
from pprofpy.collectors.sampling.cpu import CpuRecorderOptions
from pprofpy.collectors.sampling.native import NativeRecorder
from pprofpy.collectors.unwind.wholestack import UNKNOWN
from pprofpy.formats.files import read_profile
from pprofpy.model.profile import Profile, Sample
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, CommandLine, Start, interpreter, rounds_until_right
from tests.cpu import by_thread, differences, installed, kernel_lies_on_native_on_python, let_run, shares

pytestmark = [pytest.mark.ebpf, pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")]

PYTHON = sys.executable
UNKNOWN_NAME = UNKNOWN[0].function.name
SHARES = {
    "by_plain": 25.0, "by_caller": 20.0, "by_recursive": 15.0, "by_growing": 10.0, "by_aligned": 10.0, "by_large": 5.0,
    "by_huge": 5.0, "in_python": 10.0, "plain": 70.0, "caller": 20.0, "callee": 20.0, "recursive": 15.0,
    "growing": 10.0, "aligned": 10.0, "large": 5.0, "huge": 5.0,
}  # fmt: skip


def names(sample: Sample) -> list[str]:
    return [frame.function.system_name or frame.function.name for frame in sample.stack]


def stacks_through(profile: Profile, function: str) -> list[list[str]]:
    return [found for sample in profile.samples() if function in (found := names(sample))]


# -- the numbers are right -----------------------------------------------------------------------------------------


def test_every_native_function_gets_its_share_on_every_interpreter(start: Start, native_library: Path) -> None:
    versions = installed(start, str(PROGRAMS / "native.py"), str(native_library))
    found: dict[int, list[Sample]] = {pid: [] for pid in versions}

    with NativeRecorder(CpuRecorderOptions(rate_hz=500)) as recording:
        for pid in versions:
            recording.watch(open_target(pid))

        def measure() -> list[str]:
            let_run(recording, 3)
            new, wrong = by_thread(recording.window().profile), []
            for pid, version in versions.items():
                # What found no room, when we had no CPU for long, is counted elsewhere.
                found[pid] += [sample for sample in new[pid] if names(sample)[0] != UNKNOWN_NAME]
                assert not too_many_unreadable(new[pid]), version  # in the first window, too
                chance = 100 / max(1, sum(sample.values[0] for sample in found[pid])) ** 0.5
                wrong += differences(version, shares(found[pid], "cum"), SHARES, tolerance=2 + chance)
                wrong += broken_stacks(version, found[pid])
            return wrong

        rounds_until_right(measure, rounds=12)


def too_many_unreadable(samples: list[Sample]) -> bool:
    """Are Python stacks missing? Each was there to be read."""
    missing = sum(sample.values[0] for sample in samples if UNREADABLE in sample.stack)
    return missing * 50 > sum(sample.values[0] for sample in samples)


def broken_stacks(version: str, samples: list[Sample]) -> list[str]:
    """Complaints if stacks are not what the program does: those of a too large frame are cut, all others whole."""
    counts: Counter[str] = Counter()
    for sample in samples:
        stack, count = names(sample), sample.values[0]
        cut = {"huge"}.intersection(stack)
        counts["all"] += count
        counts["broken"] += count * ((UNKNOWN_NAME in stack) is not bool(cut) and "plain" in stack)
        begun = cut - {stack[0]}  # the leaf-most may not have made its frame yet
        counts["impossible"] += sum(count for name in begun if stack[stack.index(name) + 1] != UNKNOWN_NAME)
        counts["impossible"] += count * ("callee" in stack and stack[stack.index("callee") + 1] != "caller")
        counts["impossible"] += count * (stack.count("recursive") > 21)
    wrong = (
        [f"{version}: {counts['broken']} of {counts['all']} broken"] if counts["broken"] * 50 > counts["all"] else []
    )
    return wrong + ([f"{version}: {counts['impossible']} impossible stacks"] if counts["impossible"] else [])


# -- where the code comes from -------------------------------------------------------------------------------------


def test_a_library_that_is_loaded_during_the_recording_is_known(start: Start, native_library: Path) -> None:
    program = f"""
import ctypes, sys, time
print("ready", flush=True)
sys.stdin.readline()
plain = ctypes.CDLL({str(native_library)!r}).plain
plain.restype, plain.argtypes = ctypes.c_double, [ctypes.c_double]
def call(): plain(time.perf_counter() + 0.01)
while True: call()
"""
    loading = start(PYTHON, "-c", program, stdin=subprocess.PIPE)
    assert loading.stdin is not None
    with NativeRecorder(CpuRecorderOptions(rate_hz=500)) as recording:
        recording.watch(open_target(loading.pid))
        let_run(recording, 0.2)
        loading.stdin.write("\n")
        loading.stdin.flush()

        def measure() -> list[str]:
            let_run(recording, 0.5)
            stacks = stacks_through(recording.window().profile, "plain")
            return [] if any("call" in stack for stack in stacks) else [f"not among {stacks}"]

        rounds_until_right(measure, rounds=20)


def test_a_library_whose_file_is_gone_keeps_its_names(start: Start, native_library: Path) -> None:
    running = start(PYTHON, str(PROGRAMS / "native.py"), str(native_library))
    native_library.unlink()

    profile = record(running.pid, "callee")

    assert stacks_through(profile, "callee")
    assert {function.filename for function in profile.functions if function.name == "callee"} == {str(native_library)}


def test_so_does_one_that_only_the_target_can_see(start: Start, native_library: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    script = f'mount -t tmpfs none {hidden} && cp {native_library} {hidden}/only_here.so && exec "$@"'
    unshare = ("unshare", "--mount", "sh", "-c", script, "sh")
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not mount here")
    running = start(*unshare, PYTHON, str(PROGRAMS / "native.py"), f"{hidden}/only_here.so")

    profile = record(running.pid, "callee")

    assert not (hidden / "only_here.so").exists()
    assert stacks_through(profile, "callee")


def record(pid: int, function: str) -> Profile:
    """Until a function was met."""
    with NativeRecorder(CpuRecorderOptions(rate_hz=500)) as recording:
        recording.watch(open_target(pid))
        profile = recording.window().profile
        for _ in range(300):
            if stacks_through(profile, function):
                break
            let_run(recording, 0.2)
            profile = recording.window().profile
        return profile


def test_a_stripped_interpreter_has_whole_stacks(start: Start) -> None:
    zipper = start(interpreter("system"), str(PROGRAMS / "zipper.py"))

    stacks = stacks_through(record(zipper.pid, "deflate"), "deflate")

    assert stacks
    assert all("press" in stack and UNKNOWN_NAME not in stack for stack in stacks)


# -- what cannot be followed ---------------------------------------------------------------------------------------


def test_code_without_tables_is_named_and_the_rest_is_said_to_be_unknown(start: Start, tmp_path: Path) -> None:
    source, bare = tmp_path / "bare.c", tmp_path / "libbare.so"
    source.write_text("void bare(long n) { for (volatile long i = 0; i < n; i++); }")
    flags = ["-O2", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", bare, source], check=True)
    program = f"""
import ctypes
bare = ctypes.CDLL({str(bare)!r}).bare
print("ready", flush=True)
while True: bare(ctypes.c_long(10_000_000))
"""
    running = start(PYTHON, "-c", program)

    profile = record(running.pid, "bare")

    stacks = stacks_through(profile, "bare")
    assert stacks
    assert all(stack == ["bare", UNKNOWN_NAME, "<module>"] for stack in stacks)
    assert profile.collection.losses["native_no_tables"] > 0


def test_pages_of_large_arrays_that_were_never_used_are_in_nobodys_way(start: Start, tmp_path: Path) -> None:
    source, sparse = tmp_path / "sparse.c", tmp_path / "libsparse.so"
    source.write_text("""
__attribute__((noinline)) void burn(volatile char *room, long n) { for (long i = 0; i < n; i++) room[0]++; }
long sparse(long n) { volatile char room[90000]; burn(room, n); return room[0]; }
""")
    subprocess.run(["cc", "-O2", "-fomit-frame-pointer", "-shared", "-fPIC", "-o", sparse, source], check=True)
    program = f"""
import ctypes
sparse = ctypes.CDLL({str(sparse)!r}).sparse
print("ready", flush=True)
while True: sparse(ctypes.c_long(10_000_000))
"""
    running = start(PYTHON, "-c", program)

    stacks = stacks_through(record(running.pid, "burn"), "burn")

    assert stacks
    assert all(stack[:2] == ["burn", "sparse"] and UNKNOWN_NAME not in stack for stack in stacks)


def test_a_thread_without_python_shows_how_it_began(start: Start, tmp_path: Path) -> None:
    source, threads = tmp_path / "threads.c", tmp_path / "libthreads.so"
    source.write_text("""
#include <pthread.h>
static volatile long count;
__attribute__((noinline)) void *burn(void *unused) { while (1) count++; }
void begin(void) { pthread_t thread; pthread_create(&thread, 0, burn, 0); }
""")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-pthread", "-o", threads, source], check=True)
    program = f"""
import ctypes, time
ctypes.CDLL({str(threads)!r}).begin()
print("ready", flush=True)
while True: time.sleep(60)
"""
    running = start(PYTHON, "-c", program)

    stacks = stacks_through(record(running.pid, "burn"), "burn")

    assert stacks
    assert all(stack[0] == "burn" and stack[-1] == "[no Python stack]" for stack in stacks)
    assert all(UNKNOWN_NAME not in stack for stack in stacks)


# -- through the command line --------------------------------------------------------------------------------------


def test_the_kernel_engine_is_taken_for_it_and_kernel_functions_lie_on_top(cli: CommandLine, start: Start) -> None:
    program = """
import os
def read():
    with open("/dev/zero", "rb", buffering=0) as zeros:
        while True: zeros.read(1 << 20)
print("ready", flush=True)
read()
"""
    reading = start(PYTHON, "-c", program)

    done = cli("cpu", "--pid", str(reading.pid), "-d", "1", "-r", "500", "--native", "-K", "--nonblocking")

    assert done.returncode == 0, done.stderr
    assert "engine: eBPF" in done.stderr
    profile = read_profile(str(cli.recordings[-1]))
    kernel_lies_on_native_on_python(profile)


def test_children_have_theirs_too(cli: CommandLine) -> None:
    program = """
import os, zlib
def press(): zlib.compress(data, 9)
data = os.urandom(1 << 18)
child = os.fork()
for _ in range(1 if child else 100): press()
if child: os.waitpid(child, 0)
"""
    done = cli("cpu", "--native", "-s", "-r", "500", "--engine", "bpf", "--", PYTHON, "-c", program)

    assert done.returncode == 0, done.stderr
    profile = read_profile(str(cli.recordings[-1]))
    parent = int(re.search(r"pid (\d+)", profile.collection.target)[1])  # type: ignore[index]
    pressing = [sample for sample in profile.samples() if {"deflate", "press"} <= set(names(sample))]
    assert {label.value for sample in pressing for label in sample.labels if label.key == "pid"} - {parent}


def test_pyspy_cannot_do_without_pausing(cli: CommandLine) -> None:
    refused = cli("cpu", "--pid", str(os.getpid()), "--native", "--nonblocking", "--engine", "py-spy")

    assert refused.returncode == 2
    assert "must pause the target for --native" in refused.stderr
