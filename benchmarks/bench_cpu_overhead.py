"""What recording CPU time costs the recorded: a fixed amount of Python work, alone and under each engine, by turns.

Prints the CPU time that the work took (it holds all that the engine makes the process do, and other work on the machine
hardly touches it), the slowdown against nobody watching within the same round, and how many of the samples that were
due were taken. Then the shares that each engine reports for a program whose shares are known.

    python -m benchmarks.bench_cpu_overhead [ROUNDS [THREADS@HZ ...]]
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

LOAD = """
import resource, sys, threading, time
def leaf(n):
    total = 0
    for i in range(n): total += i & 3
    return total
def middle(n): return leaf(n)
def work(rounds):
    for _ in range(rounds): middle(2000)
threads, rounds = int(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
begin, before = time.perf_counter(), time.process_time()
started = [threading.Thread(target=work, args=(rounds // threads,)) for _ in range(threads)]
for thread in started: thread.start()
for thread in started: thread.join()
print(time.perf_counter() - begin, time.process_time() - before, flush=True)
sys.stdin.readline()
"""
WORK = 100_000
CASES = ((1, 100), (1, 1000), (1, 10_000), (4, 1000), (16, 100), (16, 1000), (16, 10_000))
"""(threads, samples per second)"""

ENGINES = ("nobody", "bpf", "py-spy")
NATIVE = {(1, 1000): ("bpf --native", "py-spy --native")}
"""Engines with an option, in some cases only."""

BURN = Path(__file__).parent.parent / "tests" / "programs" / "burn.py"


class Run(NamedTuple):
    """One run of the load: seconds on the clock, of CPU time; samples asked and got (0 if unknown)."""

    wall_s: float
    cpu_s: float
    asked: int
    got: int


def main() -> None:
    """Run everything, by turns."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"{'threads@Hz':>12}  {'engine':15} {'CPU':>7} {'slower by: wall':>16} {'CPU':>7}  got/asked")
    chosen = [tuple(map(int, word.split("@"))) for word in sys.argv[2:]]
    for threads, rate_hz in chosen or CASES:
        runs_by_engine: dict[str, list[Run]] = {engine: [] for engine in ENGINES + NATIVE.get((threads, rate_hz), ())}
        for _ in range(rounds):
            for engine in runs_by_engine:
                runs_by_engine[engine].append(play(engine, threads, rate_hz))
        report(threads, rate_hz, runs_by_engine)
    print()
    for engine in ENGINES[1:]:
        print(
            f"burn.py is 50 / 30 / 15 / 5 %; {engine} says {' / '.join(f'{share:.1f}' for share in shares(engine))} %"
        )


def report(threads: int, rate_hz: int, runs_by_engine: dict[str, list[Run]]) -> None:
    """Medians, and slowdowns within a round."""
    slower = {}
    for engine, runs in runs_by_engine.items():
        pairs = list(zip(runs, runs_by_engine["nobody"], strict=True))
        wall = statistics.median(one.wall_s / alone.wall_s for one, alone in pairs) - 1
        slower[engine] = statistics.median(one.cpu_s / alone.cpu_s for one, alone in pairs) - 1
        asked, got = (sum(getattr(run, name) for run in runs) for name in ("asked", "got"))
        taken = f"{got / asked:.2f}" if asked and got else ""
        cpu_s = statistics.median(run.cpu_s for run in runs)
        print(f"{threads:>5}@{rate_hz:<6}  {engine:15} {cpu_s:5.2f} s {wall:>+16.1%} {slower[engine]:>+7.1%}  {taken}")
    for ours, theirs in filter(None, (ENGINES[1:], NATIVE.get((threads, rate_hz)))):
        if min(slower[ours], slower[theirs]) > 0:  # else the machine's noise is all that there is
            print(f"{'':14}the cost of {ours} in CPU time is {slower[ours] / slower[theirs]:.2f} of {theirs}'s")


def play(engine: str, threads: int, rate_hz: int) -> Run:
    """One run of the load."""
    command = [sys.executable, "-c", LOAD, str(threads), str(WORK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdin
        assert load.stdout
        load.stdout.readline()
        with recording(engine, load.pid, rate_hz) as collection:
            load.stdin.write("go\n")
            load.stdin.flush()
            wall_s, cpu_s = map(float, load.stdout.readline().split())
        load.stdin.write("end\n")
        load.stdin.close()
    return Run(wall_s, cpu_s, max(collection.get("asked", 0), 0), max(collection.get("got", 0), 0))


@contextmanager
def recording(engine: str, pid: int, rate_hz: int) -> Iterator[dict[str, int]]:
    """Record a process while this lasts; what was asked and got is known afterwards."""
    collection: dict[str, int] = {}
    if engine == "nobody":
        yield collection
        return
    with tempfile.TemporaryDirectory() as folder:
        words = ["cpu", "--engine", *engine.split(), "--pid", str(pid), "-r", str(rate_hz), "-d", "1h", "--json"]
        with subprocess.Popen(
            [sys.executable, "-m", "pprofpy", *words],
            env={**os.environ, "PPROFPY_DIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as pprofpy:
            try:
                wait_until_it_samples(engine, pprofpy)
                yield collection
            finally:
                pprofpy.terminate()
            output, _ = pprofpy.communicate()
        collection |= json.loads(output)["collection"]


def wait_until_it_samples(engine: str, pprofpy: subprocess.Popen[str]) -> None:
    """Until the engine says so, or py-spy has used CPU time."""
    assert pprofpy.stderr
    if engine.startswith("bpf"):
        while "engine: eBPF" not in pprofpy.stderr.readline():
            pass
        return
    children = Path(f"/proc/{pprofpy.pid}/task/{pprofpy.pid}/children")
    while True:
        os.sched_yield()
        for child in children.read_text().split():
            with suppress(OSError):  # gone: py-spy is asked for its version first
                stat = Path(f"/proc/{child}/stat").read_text()
                used_ticks = sum(map(int, stat.rpartition(")")[2].split()[11:13]))  # user and system time
                if "(py-spy)" in stat and used_ticks:
                    return


def shares(engine: str) -> list[float]:
    """What an engine says of burn.py at 5 kHz in 10 s, in percent."""
    with subprocess.Popen([sys.executable, str(BURN)], stdout=subprocess.PIPE) as burning:
        words = [
            "cpu",
            "--engine",
            engine,
            "--pid",
            str(burning.pid),
            "-r",
            "5000",
            "-d",
            "10",
            "--json",
            "-o",
            os.devnull,
        ]
        command = [sys.executable, "-m", "pprofpy", *words, "-f", "pprof"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        burning.kill()
    data = json.loads(done.stdout)
    flat = {re.sub(r"^burn\.", "", row["name"]): row["flat"] for row in data["rows"]}
    return [100 * flat.get(name, 0) / data["total"] for name in ("half", "third", "seventh", "rest")]


if __name__ == "__main__":
    main()
