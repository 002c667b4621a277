"""Opening a large profile: `pprofpy top` against `go tool pprof -top` on the same file.

1,000,000 samples, 200,000 stacks, 5,000 functions, 20,000 locations, 64 MB unpacked. Asked of us: at most a quarter of
the time and half of the memory. Ends with status 1 if a median misses that, or if the two print different numbers.
"""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.harness import Run, interleave, ratios, report, spread
from pprofpy.formats import pprof
from pprofpy.model.profile import PYTHON_MAPPING, Function, Label, Line, Location, Profile, ValueType
from pprofpy.model.stack_table import Stacks, offsets_of

SAMPLES, STACKS, FUNCTIONS, LOCATIONS, THREADS = 1_000_000, 200_000, 5_000, 20_000, 64
DEEPEST = 49
ROUNDS = 3
PERIOD_NS = 10_000_000
MOST_TIME, MOST_MEMORY = 1 / 4, 1 / 2


def big_profile() -> Profile:
    """A profile as a large service gives it: some functions everywhere, most of them rarely."""
    chance = np.random.default_rng(2026)
    offsets = offsets_of(chance.integers(10, DEEPEST, STACKS))
    locations = chance.zipf(1.2, int(offsets[-1])).astype(np.int64) % LOCATIONS
    types = (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))
    return replace(
        Profile(types),
        functions=[
            Function(
                f"shop.part{i % 50}.module{i % 500}.function_{i}", f"function_{i}", f"/srv/shop/module{i % 500}.py"
            )
            for i in range(FUNCTIONS)
        ],
        mappings=[PYTHON_MAPPING],
        locations=[Location((Line(int(chance.integers(FUNCTIONS)), i % 900 + 1),), 0) for i in range(LOCATIONS)],
        stacks=Stacks(offsets, locations),
        label_sets=[(Label("thread", f"worker-{i}"), Label("tid", 4000 + i)) for i in range(THREADS)],
        sample_stacks=np.concatenate([np.arange(STACKS), chance.integers(0, STACKS, SAMPLES - STACKS)]),
        sample_labels=chance.integers(0, THREADS, SAMPLES),
        values=np.stack([np.ones(SAMPLES, np.int64), np.full(SAMPLES, PERIOD_NS)], axis=1),
        period_type=types[1],
        period=PERIOD_NS,
    )


def rows(run: Run) -> list[list[str]]:
    """The table of a top report, without its heading."""
    lines = run.output.splitlines()
    heading = next(i for i, line in enumerate(lines) if line.split()[:2] == ["flat", "flat%"])
    return [line.split() for line in lines[heading + 1 :]]


def main() -> int:
    """Make the profile, run both, print and judge the ratios."""
    scripts = sysconfig.get_path("scripts")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "big.pb.gz")
        path.write_bytes(pprof.write(big_profile()))
        unpacked_mb = len(pprof.unpack(path.read_bytes())) / 1e6
        print(f"{SAMPLES} samples, {STACKS} stacks, {unpacked_mb:.0f} MB unpacked; {ROUNDS} rounds")
        runs = interleave(
            {
                "pprofpy top": [f"{scripts}/pprofpy", "top", "-n", "0", str(path)],
                "go tool pprof -top": [f"{scripts}/go", "tool", "pprof", "-top", str(path)],
            },
            ROUNDS,
        )
    ours, theirs = runs["pprofpy top"], runs["go tool pprof -top"]
    report(runs)
    time_ratios, memory_ratios = ratios(ours, theirs, "wall_s"), ratios(ours, theirs, "peak_mb")
    print(f"time   ours / Go's: {spread(time_ratios)}, at most {MOST_TIME} asked")
    print(f"memory ours / Go's: {spread(memory_ratios)}, at most {MOST_MEMORY} asked")
    same = rows(ours[0]) == rows(theirs[0])
    print("both print the same rows" if same else "the rows DIFFER")
    good = sorted(time_ratios)[ROUNDS // 2] <= MOST_TIME and sorted(memory_ratios)[ROUNDS // 2] <= MOST_MEMORY
    return 0 if good and same else 1


if __name__ == "__main__":
    sys.exit(main())
