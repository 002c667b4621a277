"""How soon recording begins after a command is started, and how much memory it takes at most.

    python -m benchmarks.bench_first_sample [ROUNDS]

Each kernel-side command records a program that computes for a second, ROUNDS (9) times after a first start, which is
shown apart. Told are: the time from the start of the process to the first sample (to the moment that the recording
says it began at, plus one period of the clock for `cpu`), and the largest resident set, mapped ring buffers and
libraries included. It fails if the median of `cpu` is above 0.35 s, or any memory above 60 MB.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pprofpy

FIRST_SAMPLE_S, PEAK_MB = 0.35, 60
PERIOD_S = 1 / 101
PROGRAM = Path(__file__).parent.parent / "tests" / "programs" / "busy.py"
COMMANDS = {
    "cpu": ("cpu", "--engine", "bpf"),
    "cpu --native": ("cpu", "--engine", "bpf", "--native"),
    "cpu --idle": ("cpu", "--engine", "bpf", "--idle"),
    "off-cpu": ("off-cpu",),
    "gil": ("gil",),
    "sched-latency": ("sched-latency",),
    "sched-latency --trace": ("sched-latency", "--trace"),
    "sched-latency --stacks": ("sched-latency", "--stacks"),
    "events": ("events", "-e", "page-faults"),
    "trace": ("trace",),
    "trace --stacks": ("trace", "--stacks"),
    "trace -s": ("trace", "-s"),
}


class Start(NamedTuple):
    """One run of a command: seconds until it recorded, and its largest resident set in MB."""

    seconds: float
    megabytes: float


def run(words: tuple[str, ...], pid: int, folder: Path) -> Start:
    """Run a command once."""
    output = folder / ("recording.trace" if words[0] == "trace" else "recording.pb.gz")
    command = [sys.executable, "-m", "pprofpy", *words, "--pid", str(pid), "-d", "1s", "--force", "-o", str(output)]
    began_ns = time.time_ns()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder) as process:
        assert process.stderr
        largest_kb = 0
        while process.poll() is None:
            largest_kb = max(largest_kb, high_water_kb(process.pid))
            time.sleep(0.01)
        said = process.stderr.read()
    if process.returncode:
        raise SystemExit(f"{words} failed: {said.decode()}")
    recorded_ns = pprofpy.load(output).profile.time_ns
    return Start((recorded_ns - began_ns) / 1e9, largest_kb / 1024)


def high_water_kb(pid: int) -> int:
    """The largest resident set so far. Not getrusage(2)'s, which counts the process that it was started from, too."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    return 0


def main(rounds: int = 9) -> None:
    """Run all in turn, print a table."""
    with (
        tempfile.TemporaryDirectory() as name,
        subprocess.Popen([sys.executable, PROGRAM], stdout=subprocess.PIPE) as program,
    ):
        assert program.stdout
        program.stdout.readline()
        folder = Path(name)
        first = {label: run(words, program.pid, folder) for label, words in COMMANDS.items()}
        later: dict[str, list[Start]] = {label: [] for label in COMMANDS}
        for _ in range(rounds):
            for label, words in COMMANDS.items():
                later[label].append(run(words, program.pid, folder))
        program.kill()
    print(f"| first sample after, of {rounds} starts | first | median | least | most | peak MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    too_much = []
    for label, runs in later.items():
        extra = PERIOD_S if label.startswith("cpu") else 0
        times = [one.seconds + extra for one in runs]
        peak = max(one.megabytes for one in [*runs, first[label]])
        print(
            f"| {label} | {first[label].seconds + extra:.3f} s | {median(times):.3f} s | {min(times):.3f} s "
            f"| {max(times):.3f} s | {peak:.0f} |"
        )
        if peak > PEAK_MB or (label == "cpu" and median(times) > FIRST_SAMPLE_S):
            too_much.append(label)
    if too_much:
        raise SystemExit(f"too late, or too much memory: {', '.join(too_much)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
