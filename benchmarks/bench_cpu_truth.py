"""Is what the kernel engine says true? Many samples of programs that know the answer, on every interpreter there is.

For each: the largest error of any share (in points) on burn.py and shares.py at 5 kHz, and how many stacks of
paths.py, which switches between call paths as fast as it can, at 10 kHz, are such as never were.

    python -m benchmarks.bench_cpu_truth [SECONDS]
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter

import pytest

from pprofpy.collectors.bpf.cpu import CpuRecorder, CpuRecorderOptions
from pprofpy.profile import Profile
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, interpreter
from tests.integration.test_cpu_bpf import VERSIONS, impossible_path, shares

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
    for version in VERSIONS:
        try:
            path = interpreter(version)
        except pytest.skip.Exception:
            continue
        for program, (key, expected) in EXPECTED.items():
            profile = record(path, program, 5000, seconds)
            measured = shares(list(profile.samples()), key)
            error = max(abs(measured.get(name, 0) - share) for name, share in expected.items())
            print(f"{version:7} {program:10} {described(profile)}; off by {error:.2f} points at most")
        profile = record(path, "paths.py", 10_000, seconds)
        never = sum(sample.values[0] for sample in profile.samples() if impossible_path(sample))
        print(f"{version:7} paths.py   {described(profile)}; {never} that never were")
        totals += Counter({"samples": profile.total(0), "never": never})
    print(f"paths.py: {totals['never']} of {totals['samples']} samples have a stack that never was")


def described(profile: Profile) -> str:
    """What was asked, got and lost."""
    found = profile.collection
    return (
        f"{found.asked:>7} asked, {found.got:>7} got ({found.got / max(found.asked, 1):.3f}), "
        f"{len(profile.stacks):>6} stacks, {found.errors} errors"
    )


def record(path: str, program: str, rate_hz: int, seconds: float) -> Profile:
    """Run a program, record it, end it."""
    with (
        subprocess.Popen([path, str(PROGRAMS / program)], stdout=subprocess.PIPE) as process,
        CpuRecorder(CpuRecorderOptions(rate_hz)) as recording,
    ):
        assert process.stdout
        process.stdout.readline()
        recording.watch(open_target(process.pid))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            recording.poll()
            time.sleep(0.05)
        profile = recording.stop()
        process.kill()
    return profile


if __name__ == "__main__":
    main()
