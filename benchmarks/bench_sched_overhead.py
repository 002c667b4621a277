"""What watching every switch costs the watched: two processes that pass a token to and fro as fast as they can.

In one run, by turns so that the machine's moods hit all alike: nobody watches; `pprofpy sched-latency`; the same with
its ordered events; `perf sched record`. Prints switches per second, the slowdown, and what was lost. What counts is the
CPU time that the load itself used: it contains the probes, and other work on the machine hardly touches it.

    python -m benchmarks.bench_sched_overhead [ROUNDS]

Source of the load: two processes on one CPU, joined by two pipes, written in C, since Python itself would be the
bottleneck; compiled with the system's C compiler.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder

PING_PONG = r"""
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static double cpu(int who)
{
    struct rusage u;
    getrusage(who, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
int main(int argc, char **argv)
{
    int rounds = atoi(argv[1]), ping[2], pong[2];
    char token = 'x';
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_setaffinity(0, sizeof one, &one);
    if (pipe(ping) || pipe(pong) || read(0, &token, 1) < 0) return 1;
    if (fork() == 0) {
        for (int i = 0; i < rounds; i++) if (read(ping[0], &token, 1) < 1 || write(pong[1], &token, 1) < 1) return 1;
        return 0;
    }
    double start = now();
    for (int i = 0; i < rounds; i++) if (write(ping[1], &token, 1) < 1 || read(pong[0], &token, 1) < 1) return 1;
    double wall = now() - start;
    wait(0);
    printf("%.9f %.9f\n", wall, cpu(RUSAGE_SELF) + cpu(RUSAGE_CHILDREN));
    fflush(stdout);
    return read(0, &token, 1) < 0;
}
"""
REPEATS = 5
SWITCHES_PER_ROUND = 2

Losses = list[str]


class Times(NamedTuple):
    """One run of the load: seconds on the clock, and seconds of CPU time of both processes."""

    wall_s: float
    cpu_s: float


def main() -> None:
    """Run everything, by turns."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    with tempfile.TemporaryDirectory() as folder:
        program = compile_load(Path(folder))
        watchers: dict[str, Callable[[int, Losses], AbstractContextManager[object]]] = {
            "nobody": lambda pid, losses: nullcontext(),
            "pprofpy sched-latency": lambda pid, losses: pprofpy(SchedOptions(Scope(pid, children=True)), losses),
            "pprofpy --trace": lambda pid, losses: pprofpy(SchedOptions(Scope(pid, children=True), trace=True), losses),
            "pprofpy, all processes": lambda pid, losses: pprofpy(SchedOptions(), losses),
        }
        if shutil.which("perf"):
            watchers["perf sched record"] = lambda pid, losses: perf(Path(folder) / "perf.data", losses)
        times: dict[str, list[Times]] = {name: [] for name in watchers}
        losses: dict[str, Losses] = {name: [] for name in watchers}
        for _ in range(REPEATS):
            for name, watch in watchers.items():
                times[name].append(
                    play([str(program)], rounds, lambda pid, name=name, watch=watch: watch(pid, losses[name]))
                )
    report(rounds, times, losses)


def report(rounds: int, times: dict[str, list[Times]], losses: dict[str, Losses]) -> None:
    """Print the table and the ratio that matters: medians, slowdowns within a round."""
    print(f"{'watched by':24} {'switches/s':>12} {'wall':>8} {'CPU':>8}  lost")
    cost = {}
    for name, runs in times.items():
        pairs = list(zip(runs, times["nobody"], strict=True))
        wall = statistics.median(one.wall_s / alone.wall_s for one, alone in pairs) - 1
        cost[name] = statistics.median(one.cpu_s / alone.cpu_s for one, alone in pairs) - 1
        speed = rounds * SWITCHES_PER_ROUND / statistics.median(one.wall_s for one in runs)
        lost = ", ".join(losses[name]) or "nothing"
        print(f"{name:24} {speed:12,.0f} {wall:+8.1%} {cost[name]:+8.1%}  {lost}")
    if "perf sched record" in cost:
        print(f"pprofpy's cost / perf's cost (CPU): {cost['pprofpy sched-latency'] / cost['perf sched record']:.2f}")


def compile_load(folder: Path) -> Path:
    """The ping-pong program."""
    source, program = folder / "pingpong.c", folder / "pingpong"
    source.write_text(f"#define _GNU_SOURCE\n{PING_PONG}")
    subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
    return program


def play(command: Sequence[str], rounds: int, watch: Callable[[int], AbstractContextManager[object]]) -> Times:
    """How long the rounds take while somebody watches."""
    with subprocess.Popen([*command, str(rounds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin
        assert process.stdout
        with watch(process.pid):
            process.stdin.write(b"g")
            times = Times(*map(float, process.stdout.readline().split()))
            process.stdin.write(b"e")
            process.wait()
    return times


@contextmanager
def pprofpy(options: SchedOptions, losses: Losses) -> Iterator[None]:
    """Our probes, read as the command reads them."""
    with in_a_process(lambda: SchedRecorder(options), losses):
        yield


class Recorder(Protocol):
    """What all our recorders have in common."""

    def poll(self) -> object:
        """Fetch what is new."""

    def stop(self) -> Any:
        """End the recording; the result tells what was lost."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


@contextmanager
def in_a_process(start: Callable[[], Recorder], losses: Losses) -> Iterator[None]:
    """Record in a process of its own, which reads 20 times a second."""
    ready, done, result = os.pipe(), os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        os.close(done[1])
        with start() as recorder:
            os.write(ready[1], b"r")
            os.set_blocking(done[0], False)
            while not ended(done[0]):
                recorder.poll()
            collection = recorder.finish().profile.collection
            os.write(result[1], " ".join(collection.notes).encode() or b"-")
        os._exit(0)
    os.read(ready[0], 1)
    yield
    os.close(done[1])
    if (note := os.read(result[0], 10_000).decode()) != "-":
        losses.append(note)
    os.waitpid(child, 0)
    for descriptor in (*ready, done[0], *result):
        os.close(descriptor)


def ended(descriptor: int, period_s: float = 0.05) -> bool:
    """Sleep for a period; True if the other end was closed meanwhile."""
    return bool(select.select([descriptor], [], [], period_s)[0])


@contextmanager
def perf(output: Path, losses: Losses) -> Iterator[None]:
    """`perf sched record` with its defaults, system-wide as it always is."""
    command = ["perf", "sched", "record", "-o", str(output), "--", "cat"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        while not any(
            Path(f"/proc/{child}/comm").read_text() == "cat\n"
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ):
            os.sched_yield()
        yield
        process.communicate()
    stats = subprocess.run(["perf", "report", "--stats", "-i", str(output)], capture_output=True, text=True, check=True)
    if lost := sum(map(int, re.findall(r"LOST_SAMPLES events: *(\d+)", stats.stdout)[1:])):
        losses.append(f"{lost} events")


if __name__ == "__main__":
    main()
