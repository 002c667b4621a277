"""What recording the heap costs the recorded: CPU time of two programs that allocate, by turns, under each engine.

In one run, by turns so that the machine's moods hit all alike: nobody records; `pprofpy heap`'s sampler at 512 KiB and
at 64 KiB; tracemalloc with one frame; `memray run` and `memray attach`, each also with Python's own allocators traced.
memray is taken from the path, or from $MEMRAY, and attaches with the help of gdb; who is not there, fails or hangs is
left out, and that is said. Prints the ratio to the same round in which nobody recorded. Then, for the traces of many
live blocks: how long they take to fetch, the longest time in which the target stood still meanwhile, and the same for a
mere copy of them by a thread of the target itself.

    python -m benchmarks.bench_heap [ROUNDS [LIVE_BLOCKS]]

What counts is the CPU time that the program itself used for its work: it contains the hooks, and other work on the
machine hardly touches it.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Self

import pprofpy
from benchmarks.harness import spread
from pprofpy.collectors.heap import HeapOptions

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

longest = 0.0

def hold():
    global held
    held = [bytes(40) for _ in range(int(sys.stdin.readline()))]
    threading.Thread(target=tick, daemon=True).start()

def tick():
    global longest
    while True:
        start = time.perf_counter()
        time.sleep(0.001)
        longest = max(longest, time.perf_counter() - start)

def copy():
    thread = threading.Thread(target=copy_traces)
    thread.start()
    thread.join()

def copy_traces():
    import _tracemalloc, gc
    gc.disable()
    traces = _tracemalloc._get_traces()
    while traces:
        del traces[-1000:]
    gc.enable()

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


PATIENCE_S = 300
ATTACHING_S = 60
BUSY = 20


class GaveUpError(Exception):
    """Another tool could not, or has hung the program."""


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
        self.tell(*lines)
        return self.answer()

    def tell(self, *lines: str) -> None:
        """Send lines."""
        assert self._process.stdin
        self._process.stdin.write("".join(f"{line}\n" for line in lines))
        self._process.stdin.flush()

    def answer(self) -> float:
        """The next number that it says."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], PATIENCE_S)[0]:
            raise GaveUpError("the program hangs")
        answer = self._process.stdout.readline()
        if not answer:
            raise GaveUpError("the program has ended")
        return float(answer)

    def works(self) -> dict[str, float]:
        """CPU seconds of each work."""
        return {work: min([self.ask(work) for _ in range(REPEATS)][1:]) for work in WORKS}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()


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
    with Program(prefix, source) as program:
        return program.works()


def recorded(options: HeapOptions, source: str) -> dict[str, float]:
    """pprofpy records."""
    with Program([sys.executable], source) as program:
        at_work = AtWork(program)
        pprofpy.record_heap(program.pid, engine=options.engine, sample_bytes=options.sample_bytes, stop=at_work).wait()
        return at_work.times


def memray_run(memray: str, source: str, *options: str) -> dict[str, float]:
    """`memray run`, into a file that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        return under([memray, "run", "-q", *options, "-o", f"{folder}/memray.bin"], source)


def memray_attached(memray: str, source: str, *options: str) -> dict[str, float]:
    """`memray attach` to the program, which runs in memray's own environment: it must find memray there.

    It gets in while the program allocates, else never; so there is some work before that which is measured.
    """
    python = str(Path(memray).with_name("python"))
    with tempfile.TemporaryDirectory() as folder, Program([python], source) as program:
        program.tell(*["web"] * BUSY)
        command = [memray, "attach", *options, "-o", f"{folder}/memray.bin", str(program.pid)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=ATTACHING_S)
        except subprocess.TimeoutExpired as error:
            raise GaveUpError(f"not attached after {ATTACHING_S} s") from error
        except subprocess.CalledProcessError as error:
            raise GaveUpError((error.stderr.strip() or error.stdout.strip()).rpartition("\n")[2]) from error
        for _ in range(BUSY):
            program.answer()
        return program.works()


class AtOnce:
    """Ends a recording when it has begun."""

    def wait(self, _timeout: float) -> bool:
        """Now."""
        return True


def fetching(source: str, blocks: int, rounds: int) -> None:
    """Many live traced blocks: how long they take to fetch, how long the target stands still; by turns with a copy."""
    taken, paused, copied = list[float](), list[float](), list[float]()
    with Program([sys.executable, "-X", "tracemalloc"], source) as program:
        program.ask("hold", str(blocks))
        for _ in range(rounds):
            program.ask("pause")
            program.ask("copy")
            copied.append(program.ask("pause"))
            start = time.monotonic()
            recording = pprofpy.record_heap(program.pid, engine="tracemalloc", stop=AtOnce()).wait()
            taken.append(time.monotonic() - start)
            paused.append(program.ask("pause"))
    ratios = [pause / copy for pause, copy in zip(paused, copied, strict=True)]
    print(f"{recording.profile.collection.got:,} live traces: fetched in {spread(taken, ' s')}")
    print(f"  the target's longest pause {spread(paused, ' s')}; while it copies them itself {spread(copied, ' s')}")
    print(f"  the ratio, by turns {spread(ratios)}")


def all_ways() -> dict[str, Callable[[str], dict[str, float]]]:
    """What is compared."""
    ways: dict[str, Callable[[str], dict[str, float]]] = {
        "nobody": alone,
        "sampling 512k": lambda source: recorded(HeapOptions(engine="sampling"), source),
        "sampling 64k": lambda source: recorded(HeapOptions(engine="sampling", sample_bytes=64 << 10), source),
        "tracemalloc": lambda source: recorded(HeapOptions(engine="tracemalloc"), source),
    }
    memray = shutil.which(os.environ.get("MEMRAY", "memray"))
    if not memray:
        print("memray is left out: it is not on the path, and $MEMRAY does not say where it is")
        return ways
    for name, way in (("memray run", memray_run), ("memray attach", memray_attached)):
        ways[name] = partial(way, memray)
        ways[f"{name}, Python's allocators"] = partial(_with_python_allocators, way, memray)
    return ways


def _with_python_allocators(way: Callable[..., dict[str, float]], memray: str, source: str) -> dict[str, float]:
    return way(memray, source, "--trace-python-allocators")


def main() -> None:
    """Run everything, by turns."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    blocks = int(sys.argv[2]) if len(sys.argv) > 2 else 5_000_000
    ways = all_ways()
    with tempfile.TemporaryDirectory() as folder:
        source = str(Path(folder) / "allocating.py")
        Path(source).write_text(PROGRAM)
        times: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for number in range(rounds):
            for name, way in ways.items():
                try:
                    times[name].append(way(source))
                except GaveUpError as error:
                    print(f"{name}, round {number + 1}: {error}")
                    times[name].append({})
        report(times)
        fetching(source, blocks, rounds)


def report(times: dict[str, list[dict[str, float]]]) -> None:
    """For each work the CPU time, and the ratio within a round."""
    for work in WORKS:
        print(f"{work}: CPU time, and its ratio to the time when nobody records")
        for name, results in times.items():
            rounds = [(one[work], nobody[work]) for one, nobody in zip(results, times["nobody"], strict=True) if one]
            if rounds:
                ratios = [one / nobody for one, nobody in rounds]
                print(f"  {name:34} {median(one for one, _ in rounds):6.3f} s   {spread(ratios)}")


if __name__ == "__main__":
    main()
