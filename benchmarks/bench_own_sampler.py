"""CPython 3.15's own sampler (`python -m profiling.sampling`) and ours on the same programs, by turns.

Cost: a fixed amount of work, alone and under each; the slowdown against nobody watching within the same round, and how
many of the samples that were due were taken. Loads: plain functions in one thread, generators that are made and end all
the time, 16 threads. Truth: the largest error of any share (in points) of a program whose shares are known, in one
thread and in 16, and how many stacks are such as never were. Theirs reads a running process, or stops it (blocking):
then no thread runs, so it is asked for the holder of the lock.

    python -m benchmarks.bench_own_sampler [ROUNDS [SECONDS [LOAD@HZ or PROGRAM ...]]]
"""

from __future__ import annotations

import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.bench_cpu_overhead import LOAD
from benchmarks.harness import spread
from pprofpy.collectors.sampling.cpu import CpuRecorder, CpuRecorderOptions
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, interpreter
from tests.cpu import names_in
from tests.integration.test_cpu_bpf import impossible_names

VERSION = "3.15"
GENERATORS = LOAD.replace(
    "def middle(n): return leaf(n)",
    """def down(depth, n):
    if depth: yield from down(depth - 1, n)
    else: yield leaf(n)
def middle(n):
    for _ in down(8, 20): pass""",
)
LOADS = {
    "functions": (LOAD, 1, 30_000),
    "generators": (GENERATORS, 1, 200_000),
    "16 threads": (LOAD, 16, 30_000),
}
"""Program, threads, rounds of its work."""

TRUTHS = (("burn.py",), ("parallel.py", "16"), ("paths.py", "3600"), ("paths.py", "3600", "16"))
RATES_HZ = (1000, 10_000)
SHARES = {"half": 50, "third": 30, "seventh": 15, "rest": 5}
NOBODY, OURS, THEIRS, BLOCKING = "nobody", "pprofpy", "its own", "its own, blocking"
WATCHERS = (NOBODY, OURS, THEIRS, BLOCKING)


class Taken(NamedTuple):
    """What a watcher has taken: samples that were due and that it has, stacks (root first) with their counts."""

    due: int = 0
    got: int = 0
    stacks: tuple[tuple[list[str], int], ...] = ()


class Cost(NamedTuple):
    """What a load took while it was watched."""

    wall_s: float
    cpu_s: float
    taken: Taken


def main() -> None:
    """All loads, then all truths."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5
    wanted = sys.argv[3:]
    try:
        interpreter(VERSION)
    except pytest.skip.Exception as error:
        print(error)
        return
    print(f"{'load @ Hz':20} {'watcher':18} {'slower by: wall':>30} {'CPU time':>30}  got/due")
    for load in LOADS:
        for rate_hz in RATES_HZ:
            if not wanted or f"{load}@{rate_hz}" in wanted:
                costs = [{who: cost(load, who, rate_hz) for who in WATCHERS} for _ in range(rounds)]
                report_costs(load, rate_hz, costs)
    print()
    for program, *words in TRUTHS:
        if not wanted or program in wanted:
            for who in WATCHERS[1:]:
                report_truth(program, words, who, watch(who, program, words, seconds))


def report_costs(load: str, rate_hz: int, rounds: list[dict[str, Cost]]) -> None:
    """Slowdowns within each round."""
    for who in WATCHERS[1:]:
        wall = [100 * (one[who].wall_s / one[NOBODY].wall_s - 1) for one in rounds]
        cpu = [100 * (one[who].cpu_s / one[NOBODY].cpu_s - 1) for one in rounds]
        rates = [one[who].taken.got / max(one[who].taken.due, 1) for one in rounds]
        print(
            f"{f'{load} @ {rate_hz}':20} {who:18} {spread(wall, ' %'):>30} {spread(cpu, ' %'):>30}  "
            f"{statistics.median(rates):.2f}",
            flush=True,
        )


def report_truth(program: str, words: Sequence[str], who: str, taken: Taken) -> None:
    """How far off the shares are, or how many stacks never were."""
    total = sum(count for _, count in taken.stacks) or 1
    what = f"{program} {' '.join(words[-1:])}"
    if program == "paths.py":
        never = sum(count for names, count in taken.stacks if impossible_names(names))
        finding = f"{never:,} of {total:,} stacks never were ({100 * never / total:.3g} %)"
    else:
        flat = {name: sum(n for names, n in taken.stacks if names and names[-1] == name) for name in SHARES}
        error = max(abs(100 * flat[name] / total - share) for name, share in SHARES.items())
        finding = f"{total:,} stacks, off by {error:.2f} points at most"
    print(f"{what:20} {who:18} {finding}; {taken.got / max(taken.due, 1):.2f} of what was due", flush=True)


def cost(load: str, who: str, rate_hz: int) -> Cost:
    """One run of a load."""
    code, threads, work = LOADS[load]
    command = [interpreter(VERSION), "-c", code, str(threads), str(work)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        with watching(who, process.pid, rate_hz) as until:
            process.stdin.write("go\n")
            process.stdin.flush()
            taken = until(lambda: bool(select.select([process.stdout], [], [], 0)[0]))
            wall_s, cpu_s = map(float, process.stdout.readline().split())
        process.kill()
    return Cost(wall_s, cpu_s, taken)


def watch(who: str, program: str, words: Sequence[str], seconds: float) -> Taken:
    """Watch a program of tests/ for a while, at the highest rate."""
    command = [interpreter(VERSION), str(PROGRAMS / program), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        with watching(who, process.pid, RATES_HZ[-1]) as until:
            deadline = time.monotonic() + seconds
            taken = until(lambda: time.monotonic() > deadline)
        process.kill()
    return taken


# -- who watches ---------------------------------------------------------------------------------------------------

Until = Callable[[Callable[[], bool]], Taken]


@contextmanager
def watching(who: str, pid: int, rate_hz: int) -> Iterator[Until]:
    """Have a process watched; the function that is yielded waits until a condition holds, and says what was taken."""
    if who == OURS:
        with CpuRecorder(CpuRecorderOptions(rate_hz)) as recorder:
            recorder.watch(open_target(pid))
            yield lambda condition: ours(recorder, condition)
    elif who == NOBODY:
        yield nothing
    else:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "collapsed"
            options = ["--mode", "gil", "--blocking"] if who == BLOCKING else ["--mode", "cpu"]
            with sampler(pid, rate_hz, output, *options) as process:
                yield lambda condition: theirs(process, rate_hz, output, condition)


def wait(condition: Callable[[], bool], poll: Callable[[], object] = lambda: None) -> None:
    """Until it holds."""
    while not condition():
        poll()
        time.sleep(0.02)


def nothing(condition: Callable[[], bool]) -> Taken:
    """Nobody watches."""
    wait(condition)
    return Taken()


def ours(recorder: CpuRecorder, condition: Callable[[], bool]) -> Taken:
    """The kernel engine, as `pprofpy cpu` runs it."""
    wait(condition, recorder.poll)
    profile = recorder.finish().profile
    stacks = tuple((names_in(reversed(stack)), values[0]) for stack, values, _ in profile.samples())
    return Taken(profile.collection.asked, profile.collection.got, stacks)


@contextmanager
def sampler(pid: int, rate_hz: int, output: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Python's own. It says that it samples after its first second, if it is asked for figures."""
    command = [
        interpreter(VERSION), "-m", "profiling.sampling", "attach", str(pid), "--all-threads", "--no-gc",
        "--sampling-rate", str(rate_hz), "--realtime-stats", "--collapsed", "-o", str(output), *options,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout
            head = ""
            while "Stats:" not in head:
                head += process.stdout.read(1) or sys.exit(f"it did not begin: {head}")
            yield process
        finally:
            process.kill()


def theirs(process: subprocess.Popen[str], rate_hz: int, output: Path, condition: Callable[[], bool]) -> Taken:
    """Each of its samples is of all threads; those that failed are none."""
    wait(condition)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    figures = re.search(r"Captured ([\d,]+) samples? in ([\d.]+) seconds.*?Error rate: ([\d.]+)", said, re.DOTALL)
    if not figures:
        sys.exit(f"it did not say what it did: {said}")
    count = int(figures[1].replace(",", ""))
    got = round(count * (1 - float(figures[3]) / 100))
    stacks = tuple(
        ([frame.split(":")[-2] for frame in line.rpartition(" ")[0].split(";")[1:]], int(line.rpartition(" ")[2]))
        for line in output.read_text().splitlines()
    )
    return Taken(round(float(figures[2]) * rate_hz), got, stacks)


if __name__ == "__main__":
    main()
