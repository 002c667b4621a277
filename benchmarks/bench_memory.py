"""Watch the memory of long recordings: is it flat, while everything that is recorded is ever new?

    python -m benchmarks.bench_memory [MINUTES [RATE [KIND ...]]]

Recorders of each KIND (all of them; see KINDS) run side by side on one program, `tests/programs/all_new.py`, that makes
RATE (20) new threads a second with new names, new code and new files, and new children. Each 10 seconds of the
MINUTES (30), the memory, CPU time and files of each recorder are noted. Printed: the memory by minute (MB that are its
own, without files and without the rings that it shares with the kernel, which have a fixed size), its slope after
minute 5 (kB a minute, by least squares), CPU time as a share of one CPU, and what its folder holds at the end. A
recorder that ends early is told of, and the status is 1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

import psutil

EVERY_S = 10
SHOWN_MINUTES = (1, 2, 5, 10, 15, 20, 25, 30)
SETTLED_MINUTES = 5
PROGRAM = Path(__file__).parent.parent / "tests" / "programs" / "all_new.py"
KINDS = {
    "cpu": ("cpu", "--engine", "bpf", "-s", "-r", "999"),
    "cpu --idle": ("cpu", "--engine", "bpf", "-s", "--idle"),
    "off-cpu": ("off-cpu", "-s"),
    "gil": ("gil", "-s"),
    "sched-latency --trace": ("sched-latency", "-s", "--trace"),
    "sched-latency --stacks": ("sched-latency", "-s", "--stacks"),
    "trace -o": ("trace", "--subprocesses", "--stacks", "-o", "FOLDER/calls.trace"),
    "events": ("events", "-s", "-e", "context-switches"),
}


@dataclass
class Watched:
    """One recorder, and what was noted of it."""

    kind: str
    folder: Path
    process: subprocess.Popen[bytes]
    minutes: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    files_mb: float = 0.0

    def note(self, minute: float) -> None:
        """Note its memory, with that of its helpers, its CPU time and its files."""
        try:
            mine = psutil.Process(self.process.pid)
            everyone = [mine, *mine.children(recursive=True)]
            megabytes = sum(own_bytes(one.pid) for one in everyone) / 1e6
            times = [one.cpu_times() for one in everyone]
        except (psutil.Error, OSError):
            return
        self.minutes.append(minute)
        self.megabytes.append(megabytes)
        self.cpu_s = sum(each.user + each.system for each in times)
        self.files_mb = sum(path.stat().st_size for path in self.folder.iterdir()) / 1e6

    def at(self, minute: float) -> float:
        """The memory at a moment, in MB: what was noted last before it."""
        return [size for moment, size in zip(self.minutes, self.megabytes, strict=True) if moment <= minute][-1]

    def slope_kb(self) -> float:
        """What it grew by, in kB a minute, since it should be settled."""
        later = [pair for pair in zip(self.minutes, self.megabytes, strict=True) if pair[0] >= SETTLED_MINUTES]
        return linear_regression(*zip(*later, strict=True)).slope * 1000 if len(later) > 2 else float("nan")


def own_bytes(pid: int) -> int:
    """The anonymous memory of a process; what several share counts in part."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(rows["Pss_Anon"].split()[0]) * 1024


def begin(kind: str, folder: Path, pid: int, seconds: int) -> Watched:
    """Start a recorder; what it says goes to a file of its own, beside its folder."""
    folder.mkdir()
    words = [word.replace("FOLDER", str(folder)) for word in KINDS[kind]]
    with folder.with_suffix(".said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "pprofpy", *words, "-p", str(pid), "-d", f"{seconds}s", "-v"],
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, env={**os.environ, "PPROFPY_DIR": str(folder)},
        )  # fmt: skip
    return Watched(kind, folder, process)


def watch(recorders: list[Watched], target: psutil.Process, seconds: int) -> list[Watched]:
    """Note everything each 10 seconds; returned are those that ended before their time."""
    begun_s = time.monotonic()
    at_s, fallen = 0.0, []
    while at_s + EVERY_S < seconds:
        at_s += EVERY_S
        time.sleep(max(begun_s + at_s - time.monotonic(), 0))
        for one in recorders:
            one.note(at_s / 60)
            if one.process.poll() is not None and one not in fallen:
                fallen.append(one)
        if at_s % 60 == 0:
            sizes = ", ".join(f"{one.kind} {one.megabytes[-1]:.1f}" for one in recorders if one.megabytes)
            print(f"minute {at_s / 60:.0f}: {sizes}; target {target.memory_info().rss / 1e6:.1f}", flush=True)
    return fallen


def show(recorders: list[Watched], target_s: float, seconds: float) -> None:
    """Print the table, in Markdown."""
    shown = [minute for minute in SHOWN_MINUTES if minute * 60 <= seconds]
    print("| MB after minute | " + " | ".join(map(str, shown)) + " | kB/min after 5 | CPU | files |")
    print("| --- |" + " ---: |" * (len(shown) + 3))
    for one in recorders:
        sizes = " | ".join(f"{one.at(minute):.1f}" for minute in shown)
        share = one.cpu_s / seconds
        print(f"| {one.kind} | {sizes} | {one.slope_kb():+.0f} | {share:.1%} | {one.files_mb:.1f} MB |")
    print(f"The target used {target_s / seconds:.1%} of a CPU.")


def main() -> int:
    """Record, watch, and print the table."""
    given = [float(word) for word in sys.argv[1:3]]
    minutes, rate = (*given, *(30.0, 20.0)[len(given) :])
    kinds, seconds = sys.argv[3:] or list(KINDS), round(minutes * 60)
    with tempfile.TemporaryDirectory(prefix="pprofpy-memory-") as place:
        target = subprocess.Popen([sys.executable, str(PROGRAM), str(rate)], stdout=subprocess.PIPE)
        recorders = []
        try:
            assert target.stdout
            assert target.stdout.readline() == b"ready\n"
            about = psutil.Process(target.pid)
            recorders = [begin(kind, Path(place) / f"{n}", target.pid, seconds) for n, kind in enumerate(kinds)]
            fallen = watch(recorders, about, seconds)
            show(recorders, sum(about.cpu_times()[:2]), seconds)
            for one in recorders:
                one.process.wait(300)
        finally:
            for process in (*(one.process for one in recorders), target):
                process.kill()
                process.wait()
        for one in recorders:
            said = one.folder.with_suffix(".said").read_text()
            print(f"{one.kind}:", *(line for line in said.splitlines() if line.startswith(("memory:", "Lost:"))))
            if one in fallen or one.process.returncode:
                print(f"  ended with status {one.process.returncode}: {said[-2000:]}")
    return int(bool(fallen))


if __name__ == "__main__":
    sys.exit(main())
