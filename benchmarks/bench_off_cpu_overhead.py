"""What Python stacks at every switch cost the watched: two Python processes that pass a byte to and fro.

In one run, by turns: nobody watches; `pprofpy off-cpu` with kernel stacks only (as of the whole system); with Python
stacks; with those of wakers too; `sched-latency`, and with stacks; `perf sched record`. The byte is passed so many
Python frames deep. What counts is the CPU time that the load itself used: it contains the probes.

    python -m benchmarks.bench_off_cpu_overhead [ROUNDS [FRAMES]]
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from benchmarks.bench_sched_overhead import SWITCHES_PER_ROUND, Losses, Times, in_a_process, perf, play
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.off_cpu import OffCpuOptions, OffCpuRecorder
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder

PING_PONG = """
import os, resource, sys, time
os.sched_setaffinity(0, {0})
frames, rounds, (ping_out, ping_in), (pong_out, pong_in) = int(sys.argv[1]), int(sys.argv[2]), os.pipe(), os.pipe()
os.read(0, 1)
def deep(frames, work, *arguments):
    return deep(frames - 1, work, *arguments) if frames else work(*arguments)
def answer():
    for _ in range(rounds):
        os.read(ping_out, 1); os.write(pong_in, b"x")
def ask():
    for _ in range(rounds):
        os.write(ping_in, b"x"); os.read(pong_out, 1)
if not (child := os.fork()):
    deep(frames, answer); os._exit(0)
start = time.perf_counter()
deep(frames, ask)
wall = time.perf_counter() - start
os.wait()
usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
cpu = sum(one.ru_utime + one.ru_stime for one in usages)
print(f"{wall:.9f} {cpu:.9f}", flush=True)
os.read(0, 1)
"""
REPEATS = 5


def main() -> None:
    """Run everything, by turns."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    frames = sys.argv[2] if len(sys.argv) > 2 else "10"
    with tempfile.TemporaryDirectory() as folder:
        watchers: dict[str, Callable[[int, Losses], AbstractContextManager[object]]] = {
            "nobody": lambda pid, losses: nullcontext(),
            "off-cpu, kernel stacks": lambda pid, losses: off_cpu(OffCpuOptions(), losses),
            "off-cpu": lambda pid, losses: off_cpu(OffCpuOptions(Scope(pid, children=True)), losses),
            "off-cpu --wakers": lambda pid, losses: off_cpu(
                OffCpuOptions(Scope(pid, children=True), wakers=True), losses
            ),
            "sched-latency": lambda pid, losses: latency(SchedOptions(Scope(pid, children=True)), losses),
            "sched-latency --stacks": lambda pid, losses: latency(
                SchedOptions(Scope(pid, children=True), stacks=True), losses
            ),
        }
        if shutil.which("perf"):
            watchers["perf sched record"] = lambda pid, losses: perf(Path(folder) / "perf.data", losses)
        times: dict[str, list[Times]] = {name: [] for name in watchers}
        losses: dict[str, Losses] = {name: [] for name in watchers}
        command = [sys.executable, "-c", PING_PONG, frames]
        for _ in range(REPEATS):
            for name, watch in watchers.items():
                times[name].append(play(command, rounds, lambda pid, name=name, watch=watch: watch(pid, losses[name])))
    report(rounds, times, losses)


def report(rounds: int, times: dict[str, list[Times]], losses: dict[str, Losses]) -> None:
    """Print the table: medians; slowdowns and what a switch costs within a round."""
    print(f"{'watched by':24} {'switches/s':>12} {'CPU':>8} {'a switch':>10}  something lost in")
    for name, runs in times.items():
        pairs = list(zip(runs, times["nobody"], strict=True))
        ratio = statistics.median(one.cpu_s / alone.cpu_s for one, alone in pairs) - 1
        switches = rounds * SWITCHES_PER_ROUND
        extra_us = statistics.median((one.cpu_s - alone.cpu_s) / switches * 1e6 for one, alone in pairs)
        speed = switches / statistics.median(one.wall_s for one in runs)
        print(f"{name:24} {speed:12,.0f} {ratio:+8.1%} {extra_us:+7.2f} us  {len(losses[name])} of {len(runs)} rounds")


def off_cpu(options: OffCpuOptions, losses: Losses) -> AbstractContextManager[None]:
    """`pprofpy off-cpu`, read as the command reads it."""
    return in_a_process(lambda: OffCpuRecorder(options), losses)


def latency(options: SchedOptions, losses: Losses) -> AbstractContextManager[None]:
    """`pprofpy sched-latency`, read as the command reads it."""
    return in_a_process(lambda: SchedRecorder(options), losses)


if __name__ == "__main__":
    main()
