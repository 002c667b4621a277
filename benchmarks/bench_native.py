"""Whole native stacks, side by side: what they cost the recorded and the recorder, and how many are whole.

A fixed amount of work that goes from Python through C to Python is done alone and under each tool, by turns: `pprofpy
cpu --native`, the same without --native, `py-spy record --native`, and `perf record --call-graph dwarf` with the `perf
script` that unwinds (perf has no Python functions: its stacks are whole if they reach the thread's start). Then
tests/programs/chains.py, whose stacks are known, is recorded by each. The interpreter's own functions are not asked
for: py-spy leaves them out.

Prints the target's slowdown in CPU time within the round, and the recorder's CPU time, as medians with the extremes.

    python -m benchmarks.bench_native [ROUNDS [HZ ...]]
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import spread
from pprofpy.formats.files import read_profile
from tests.chains import UNKNOWN_NAME, frames_of, mistake

LOAD = """
import re, sys, time
def crunch(n):
    total = 0
    for i in range(n): total += i & 3
    return total
def key_of(item): return crunch(400) + item
def replacement(match): return str(crunch(400))
def work():
    sorted(range(20), key=key_of)
    re.sub("x", replacement, "x" * 20)
print("ready", flush=True)
sys.stdin.readline()
before = time.process_time()
for _ in range(int(sys.argv[1])): work()
print(time.process_time() - before, flush=True)
sys.stdin.readline()
"""
WORK, SECONDS, PERF_BYTES = 12_000, 12, 16_384
PROGRAMS = Path(__file__).parent.parent / "tests" / "programs"
PPROFPY = [sys.executable, "-m", "pprofpy", "cpu", "--engine", "bpf", "-f", "pprof"]
PERF = ["perf", "record", "-q", "--call-graph", f"dwarf,{PERF_BYTES}"]


def commands(pid: int, rate_hz: int, output: str, seconds: int) -> dict[str, list[str]]:
    """Tool -> how it records a process."""
    spy = shutil.which("py-spy") or str(Path(sys.executable).with_name("py-spy"))
    ours = [*PPROFPY, "-p", str(pid), "-r", str(rate_hz), "-d", str(seconds), "-o", output]
    theirs = ["-p", str(pid), "-r", str(rate_hz), "-d", str(seconds), "-f", "raw", "-o", output]
    found = {
        "pprofpy": ours,
        "pprofpy --native": [*ours, "--native"],
        "py-spy --native": [spy, "record", "-n", *theirs],
    }
    if shutil.which("perf"):
        found["perf dwarf"] = [*PERF, "-F", str(rate_hz), "-p", str(pid), "-o", output, "--", "sleep", str(seconds)]
    return found


class Run(NamedTuple):
    """One run: CPU seconds of the work, and of the recorder; samples taken."""

    work_s: float
    recorder_s: float
    samples: int


def main() -> None:
    """Run everything, by turns."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    for rate_hz in map(int, sys.argv[2:] or ("100", "1000")):
        runs: dict[str, list[Run]] = {name: [] for name in ("nobody", *commands(0, rate_hz, "", SECONDS))}
        for _ in range(rounds):
            for name, found in runs.items():
                found.append(play(name, rate_hz))
        print(f"{rate_hz} Hz: slowdown of the target, CPU time of the recorder (its start included), of it a sample")
        for name, found in runs.items():
            slower = [100 * (one.work_s / alone.work_s - 1) for one, alone in zip(found, runs["nobody"], strict=True)]
            each_us = [1e6 * one.recorder_s / max(1, one.samples) for one in found]
            cost = [one.recorder_s for one in found]
            print(f"  {name:18} {spread(slower, ' %'):26} {spread(cost, ' s'):26} {spread(each_us, ' us')}")
    for name, whole, total in completeness():
        print(f"{name:18} {100 * whole / max(1, total):5.1f} % of {total} stacks are whole")


def play(name: str, rate_hz: int) -> Run:
    """One run of the load under a tool."""
    command = [sys.executable, "-c", LOAD, str(WORK)]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load,
    ):
        assert load.stdin
        assert load.stdout
        load.stdout.readline()
        output, before = f"{folder}/out", _children_s()
        tool = commands(load.pid, rate_hz, output, SECONDS).get(name)
        recording = subprocess.Popen(tool, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) if tool else None
        if recording:
            wait_until_it_has_started(recording)
        load.stdin.write("go\n")
        load.stdin.flush()
        work_s = float(load.stdout.readline())
        samples = 0
        if recording:
            recording.wait()
            samples = len(list(stacks_of(name, output)))
        recorder_s = _children_s() - before
        load.stdin.write("end\n")
    return Run(work_s, recorder_s, samples)


def wait_until_it_has_started(recording: subprocess.Popen[bytes]) -> None:
    """A recorder has started when it has stopped to compute: until then it takes CPU time from nobody's account."""
    try:
        recording.wait(2.5)
    except subprocess.TimeoutExpired:
        return
    raise SystemExit(f"{recording.args!r} ended with status {recording.returncode}")


def _children_s() -> float:
    """CPU time of all children that have ended: the load is not among them while it runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


Stack = list[tuple[str, bool]]
"""(name, is it Python's?), root-first."""


def stacks_of(name: str, output: str) -> Iterator[Stack]:
    """What a tool has recorded, a stack for each sample."""
    readers: dict[str, Callable[[str], Iterator[Stack]]] = {"perf dwarf": of_perf, "py-spy --native": of_py_spy}
    yield from readers.get(name, of_pprofpy)(output)


def of_pprofpy(output: str) -> Iterator[Stack]:
    """Read a pprof file."""
    profile = read_profile(output)
    for stack, values in zip(profile.sample_stacks.tolist(), profile.values.tolist(), strict=True):
        yield from [frames_of(profile, stack)] * values[0]


def of_py_spy(output: str) -> Iterator[Stack]:
    """Read py-spy's raw output."""
    for line in Path(output).read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        words = [re.fullmatch(r"(.*?) \((.*)\)", one) for one in stack.split(";")]
        places = [(found[1], ".py:" in found[2]) for found in words if found]
        frames = [(name.rpartition(".")[2] if is_python else name, is_python) for name, is_python in places]
        yield from [frames] * int(count)


def of_perf(output: str) -> Iterator[Stack]:
    """Have perf unwind what it has recorded."""
    words = ["perf", "script", "-F", "ip,sym", "-i", output]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for block in filter(None, text.split("\n\n")):
        yield [(line.split(maxsplit=1)[-1], False) for line in reversed(block.splitlines()) if line.strip()]


def completeness() -> Iterator[tuple[str, int, int]]:
    """Of each tool: how many stacks of chains.py are whole, of how many."""
    with tempfile.TemporaryDirectory() as folder:
        build(folder)
        load = [sys.executable, str(PROGRAMS / "chains.py"), f"{folder}/chains.so", f"{folder}/classes.so"]
        with subprocess.Popen(load, stdout=subprocess.PIPE) as running:
            assert running.stdout
            running.stdout.readline()
            for name in list(commands(0, 100, "", 5))[1:]:
                output = f"{folder}/{name.replace(' ', '')}"
                subprocess.run(commands(running.pid, 100, output, 5)[name], capture_output=True, check=True)
                found = list(stacks_of(name, output))
                yield name, sum(is_whole(stack) for stack in found), len(found)
            running.kill()


def build(folder: str) -> None:
    """Compile what chains.py calls."""
    flags = ["-O2", "-fomit-frame-pointer", "-shared", "-fPIC"]
    for compiler, source, library in (("cc", "chains.c", "chains.so"), ("c++", "chains.cpp", "classes.so")):
        subprocess.run([compiler, *flags, "-o", f"{folder}/{library}", PROGRAMS / source], check=True)


def is_whole(stack: Sequence[tuple[str, bool]]) -> bool:
    """Is it one of the ways of chains.py from its root; without Python's functions: does it begin as threads do?"""
    if not any(is_python for _, is_python in stack):
        return bool(stack) and stack[0][0].startswith(("_start", "__libc_start", "start_thread", "clone"))
    names = [name for name, _ in stack]
    return UNKNOWN_NAME not in names and "main" in names and not mistake(list(stack), is_named=False)


if __name__ == "__main__":
    main()
