"""How many stacks are such as never were? The kernel engine samples paths.py at 10 kHz until it has a million stacks.

paths.py switches between call paths as fast as it can, and each of its functions says in its name which it may call. It
runs on every CPU: as copies, or, where there is no interpreter lock, as threads of one process. `3.15+jit` is 3.15 with
PYTHON_JIT=1. A million stacks take about a minute where there are two CPUs.

    python -m benchmarks.bench_impossible [STACKS [PYTHON...]]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack

import pytest

from pprofpy.collectors.sampling.cpu import CpuRecorder, CpuRecorderOptions
from pprofpy.model.profile import Profile
from pprofpy.target import open_target
from tests.conftest import FREE_PYTHONS, PROGRAMS, interpreter
from tests.cpu import let_run
from tests.integration.test_cpu_bpf import impossible_path, is_incomplete

RATE_HZ, WINDOW_S = 10_000, 2.0
STACKS = 1_000_000
JIT = "+jit"
CPUS = len(os.sched_getaffinity(0))


def main() -> None:
    """One Python after the other."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else STACKS
    for python in sys.argv[2:] or ["3.15", f"3.15{JIT}", *FREE_PYTHONS]:
        try:
            report(python, sample(python, wanted))
        except pytest.skip.Exception as error:
            print(error)


def sample(python: str, wanted: int) -> Counter[str]:
    """Until there are so many stacks."""
    found: Counter[str] = Counter()
    version = python.removesuffix(JIT)
    copies, threads = (1, CPUS + 1) if version in FREE_PYTHONS else (CPUS, 1)
    began_s = time.monotonic()
    with ExitStack() as stack:
        recorder = stack.enter_context(CpuRecorder(CpuRecorderOptions(RATE_HZ)))
        for _ in range(copies):
            process = stack.enter_context(
                subprocess.Popen(
                    [interpreter(version), str(PROGRAMS / "paths.py"), "3600", str(threads)],
                    stdout=subprocess.PIPE,
                    env={**os.environ, "PYTHON_JIT": str(int(python.endswith(JIT)))},
                )
            )
            stack.callback(process.kill)
            assert process.stdout
            process.stdout.readline()
            recorder.watch(open_target(process.pid))
        while found["stacks"] < wanted:
            let_run(recorder, WINDOW_S)
            found += counted(recorder.window().profile)
        recorder.finish()
    found["seconds"] = round(time.monotonic() - began_s)
    return found


def counted(profile: Profile) -> Counter[str]:
    """Of one window."""
    found: Counter[str] = Counter(lost=profile.collection.dropped)
    for one in profile.samples():
        count = one.values[0]
        if one.stack[-1].function.name == "[no Python stack]":
            found["without"] += count
            continue
        found["stacks"] += count
        found["incomplete"] += count * is_incomplete(one)
        if names := impossible_path(one):
            found["never"] += count
            print(f"  never was: {' '.join(names)}", flush=True)
    return found


def report(python: str, found: Counter[str]) -> None:
    """In one line."""
    print(
        f"{python:9} {found['never']:,} of {found['stacks']:,} stacks never were, {found['incomplete']:,} incomplete; "
        f"{found['without']:,} samples without a stack, {found['lost']:,} lost; {found['seconds']} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
