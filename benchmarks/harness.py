"""Timing whole commands against each other: interleaved runs in one go, by the kernel's own account of each process.

Machines are shared and noisy, so single times mean little. Each round runs every command once, in turn; what counts is
the ratio within a round, and its spread over the rounds.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Run:
    """What one run of a command cost."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    output: str


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end; its standard output is kept, what it says on standard error is not.

    Raises:
        SystemExit: It failed.
    """
    start = time.monotonic()
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with status {process.returncode}")
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)


def interleave(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[Run]]:
    """Run each command once a round. A first round, not counted, warms the caches."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            result = run(command)
            if number:
                runs[name].append(result)
    return runs


def spread(values: Sequence[float], unit: str = "") -> str:
    """The median, and the smallest and largest value."""
    return f"{median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def ratios(ours: Sequence[Run], theirs: Sequence[Run], figure: str) -> list[float]:
    """Ours divided by theirs, round by round."""
    return [getattr(a, figure) / getattr(b, figure) for a, b in zip(ours, theirs, strict=True)]


def report(runs: Mapping[str, Sequence[Run]]) -> None:
    """Print what each command cost: the median over its runs, and the extremes."""
    width = max(map(len, runs))
    for name, results in runs.items():
        wall = spread([r.wall_s for r in results], " s")
        cpu = spread([r.cpu_s for r in results], " s")
        peak = spread([r.peak_mb for r in results], " MB")
        print(f"{name:{width}}  wall {wall}  CPU {cpu}  peak {peak}")
