"""What recording the heap costs the recorded: CPU time of two programs that allocate, by turns, under each engine.

In one run, by turns so that the machine's moods hit all alike: nobody records; `pprofpy heap`'s sampler at 512 KiB and
at 64 KiB; tracemalloc with one frame; `memray run`, also with Python's own allocators traced. memray is taken from the
path, or from $MEMRAY; without it, that part is left out. Prints the ratio to the round in which nobody recorded. Then:
how long the traces of many live blocks take to fetch, and the longest time in which the target stood still meanwhile.

    python -m benchmarks.bench_heap [ROUNDS [LIVE_BLOCKS]]

What counts is the CPU time that the program itself used for its work: it contains the hooks, and other work on the
machine hardly touches it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.harness import spread
from pprofpy.collectors.heap import HeapOptions, record
from pprofpy.target import open_target

PROGRAM = r"""
import json, sys, threading, time

def heavy():
    kept = []
    for number in range(800000):
        parts = [bytes(40 + number % 300), (number, str(number))]
        kept.append({"number": number, "name": "item %d" % number, "parts": parts})
        if len(kept) > 5000:
            del kept[:2500]

def web():
    order = {"items": [{"name": "item-%d" % n, "price": n * 1.5, "count": n % 7} for n in range(60)], "number": 1}
    body = json.dumps(order)
    for _ in range(12000):
        order = json.loads(body)
        total = sum(item["price"] * item["count"] for item in order["items"])
        rows = ["<tr><td>%s</td><td>%.2f</td></tr>" % (item["name"], item["price"]) for item in order["items"]]
        json.dumps({"page": "".join(rows), "total": total}).encode()

def hold():
    global held, longest
    held = [bytes(40) for _ in range(int(sys.stdin.readline()))]
    longest = 0.0
    def tick():
        global longest
        while True:
            start = time.perf_counter()
            time.sleep(0.001)
            longest = max(longest, time.perf_counter() - start)
    threading.Thread(target=tick, daemon=True).start()

print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "pause":
        print(longest, flush=True)
        longest = 0.0
        continue
    start = time.process_time()
    globals()[line.strip()]()
    print(time.process_time() - start, flush=True)
"""

WORKS = ("heavy", "web")
REPEATS = 3
"""The work is done so often in each round; the first time warms up."""


class Program:
    """The program, ready for work."""

    def __init__(self, prefix: list[str], source: str) -> None:
        self._process = subprocess.Popen(
            [*prefix, source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout
        while self._process.stdout.readline() != "ready\n":
            assert self._process.poll() is None, "it did not start"
        self.pid = self._process.pid

    def ask(self, *lines: str) -> float:
        """Send lines; returns the number that it answers."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("".join(f"{line}\n" for line in lines))
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def works(self) -> dict[str, float]:
        """CPU seconds of each work."""
        return {work: min([self.ask(work) for _ in range(REPEATS)][1:]) for work in WORKS}

    def close(self) -> None:
        """End it."""
        self._process.communicate()


class AtWork:
    """Ends a recording when the program has done its work."""

    def __init__(self, program: Program) -> None:
        self.program, self.times = program, dict[str, float]()

    def wait(self, _timeout: float) -> bool:
        """The recording has begun."""
        self.times = self.times or self.program.works()
        return True


def alone(source: str) -> dict[str, float]:
    """Nobody records."""
    return under([sys.executable], source)


def under(prefix: list[str], source: str) -> dict[str, float]:
    """The program is started by another tool."""
    program = Program(prefix, source)
    try:
        return program.works()
    finally:
        program.close()


def recorded(options: HeapOptions, source: str) -> dict[str, float]:
    """pprofpy records."""
    program = Program([sys.executable], source)
    try:
        at_work = AtWork(program)
        record(open_target(program.pid), options, at_work)
        return at_work.times
    finally:
        program.close()


def memray(source: str, *options: str) -> dict[str, float]:
    """`memray run`, into a file that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        command = [os.environ.get("MEMRAY", "memray"), "run", "-q", *options, "-o", f"{folder}/memray.bin"]
        return under(command, source)


def fetching(source: str, blocks: int) -> None:
    """Many live traced blocks: how long they take to fetch, how long the target stood still."""
    program = Program([sys.executable, "-X", "tracemalloc"], source)
    try:
        program.ask("hold", str(blocks))
        program.ask("pause")

        class AtOnce:
            def wait(self, _timeout: float) -> bool:
                return True

        start = time.monotonic()
        recording = record(open_target(program.pid), HeapOptions(engine="tracemalloc"), AtOnce())
        taken_s = time.monotonic() - start
        got = recording.profile.collection.got
        print(
            f"{got:,} live traces fetched in {taken_s:.1f} s; the target's longest pause {program.ask('pause'):.2f} s"
        )
    finally:
        program.close()


def main() -> None:
    """Run everything, by turns."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    blocks = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    ways: dict[str, Callable[[str], dict[str, float]]] = {
        "nobody": alone,
        "sampling 512k": lambda source: recorded(HeapOptions(engine="sampling"), source),
        "sampling 64k": lambda source: recorded(HeapOptions(engine="sampling", sample_bytes=64 << 10), source),
        "tracemalloc": lambda source: recorded(HeapOptions(engine="tracemalloc"), source),
    }
    if shutil.which(os.environ.get("MEMRAY", "memray")):
        ways["memray run"] = memray
        ways["memray run, Python's allocators"] = lambda source: memray(source, "--trace-python-allocators")
    with tempfile.TemporaryDirectory() as folder:
        source = str(Path(folder) / "allocating.py")
        Path(source).write_text(PROGRAM)
        times: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                times[name].append(way(source))
        report(times)
        fetching(source, blocks)


def report(times: dict[str, list[dict[str, float]]]) -> None:
    """For each work the CPU time, and the ratio within a round."""
    for work in WORKS:
        print(f"{work}: CPU time, and its ratio to the time when nobody records")
        for name, results in times.items():
            ratios = [one[work] / alone[work] for one, alone in zip(results, times["nobody"], strict=True)]
            print(f"  {name:32} {median(one[work] for one in results):6.3f} s   {spread(ratios)}")


if __name__ == "__main__":
    main()
