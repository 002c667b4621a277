"""Which CPUs show all their switches to perf.

Some virtual machines hide from perf and ftrace (not from raw tracepoints) what happens in the context of one task or
another: often the idle task of a CPU, so that threads leave that CPU without ever having come. What ran there cannot be
compared with perf; programs for such comparisons are kept to the other CPUs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.integration.sched_reference import analyse, perf_sched_record

_NAP = "import sys, time\nsys.stdin.read(1)\nfor _ in range(100): time.sleep(0.001)"
_SOME = 5
"""So many hidden switches of a hundred happen to a CPU that is not blind."""


def on_sighted_cpus() -> tuple[str, ...]:
    """Words to put before a command, so that perf can see all its switches; skips the test where that is impossible."""
    cpus = _sighted_cpus()
    if not cpus:
        pytest.skip("on each CPU this kernel hides switches from perf")
    return ("taskset", "--cpu-list", ",".join(map(str, cpus)))


@cache
def _sighted_cpus() -> tuple[int, ...]:
    return tuple(cpu for cpu in sorted(os.sched_getaffinity(0)) if _hidden_switches(cpu) <= _SOME)


def _hidden_switches(cpu: int) -> int:
    """How many switches perf misses of a thread that often goes to sleep and leaves the CPU idle."""
    command = ["taskset", "--cpu-list", str(cpu), sys.executable, "-c", _NAP]
    with TemporaryDirectory() as folder, subprocess.Popen(command, stdin=subprocess.PIPE) as program:
        output = Path(folder) / "perf.data"
        with perf_sched_record(output):
            program.communicate(b"go")
        return analyse(output).holes[program.pid]
