"""Is what the kernel engine says true? Many samples of programs that know the answer, on every interpreter there is.

For each: the largest error of any share (in points) on burn.py and shares.py at 5 kHz, and how many stacks of
paths.py, which switches between call paths as fast as it can, at 10 kHz, are such as never were. It runs on every CPU
at once: 10 seconds a program on 8 interpreters take 4 minutes, and give more than a million stacks where there are two.

    python -m benchmarks.bench_cpu_truth [SECONDS [VERSION...]]
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

from pprofpy.collectors.sampling.cpu import CpuRecorder, CpuRecorderOptions
from pprofpy.model.profile import Profile
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, installed_versions, interpreter
from tests.cpu import VERSIONS, let_run, shares
from tests.integration.test_cpu_bpf import impossible_path

EXPECTED = {
    "burn.py": ("leaf", {"half": 50, "third": 30, "seventh": 15, "rest": 5}),
    "shares.py": (
        "cum",
        {
            "by_generator": 25, "by_recursion": 20, "by_comprehension": 15, "by_callback": 15, "by_asyncio": 15,
            "by_exec": 10,
        },
    ),
}  # fmt: skip


def main() -> None:
    """Each program on each interpreter, one after the other."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10
    totals: Counter[str] = Counter()
    for version in sys.argv[2:] or installed_versions(VERSIONS):
        path = interpreter(version)
        for program, (key, expected) in EXPECTED.items():
            profile = record(path, program, 5000, seconds)
            measured = shares(list(profile.samples()), key)
            error = max(abs(measured.get(name, 0) - share) for name, share in expected.items())
            print(f"{version:7} {program:10} {described(profile)}; off by {error:.2f} points at most", flush=True)
        profile = record(path, "paths.py", 10_000, seconds, copies=os.cpu_count() or 1)
        never = sum(sample.values[0] for sample in profile.samples() if impossible_path(sample))
        print(f"{version:7} paths.py   {described(profile)}; {never} that never were", flush=True)
        totals += Counter({"samples": profile.total(0), "never": never})
    print(f"paths.py: {totals['never']:,} of {totals['samples']:,} samples have a stack that never was")


def described(profile: Profile) -> str:
    """What was asked, got and lost."""
    found = profile.collection
    return (
        f"{found.asked:>7} asked, {found.got:>7} got ({found.got / max(found.asked, 1):.3f}), "
        f"{len(profile.stacks):>6} stacks, {found.errors} errors"
    )


def record(path: str, program: str, rate_hz: int, seconds: float, copies: int = 1) -> Profile:
    """Run a program, or several copies of it at once, record them, end them."""
    with ExitStack() as stack:
        recording = stack.enter_context(CpuRecorder(CpuRecorderOptions(rate_hz)))
        for _ in range(copies):
            process = stack.enter_context(subprocess.Popen([path, PROGRAMS / program], stdout=subprocess.PIPE))
            stack.callback(process.kill)
            assert process.stdout
            process.stdout.readline()
            recording.watch(open_target(process.pid))
        let_run(recording, seconds)
        return recording.finish().profile


if __name__ == "__main__":
    main()
