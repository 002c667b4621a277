"""What the heap tests share: tasks for programs/heap_load.py, recordings of them, and looks at the target."""

from __future__ import annotations

import ast
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import pprofpy
from pprofpy.collectors import attach
from pprofpy.collectors.heap import HeapOptions
from pprofpy.model.heap import HeapRecording
from pprofpy.model.profile import Profile
from pprofpy.session import Stop
from pprofpy.target import open_target
from pprofpy.units import NS_PER_S
from tests.conftest import PATIENCE_S, PROGRAMS, PYTHONS

LOAD = PROGRAMS / "heap_load.py"
VERSIONS = (*PYTHONS, "system")

Program = subprocess.Popen[str]


def task(program: Program, name: str) -> tuple[int, int]:
    """Have the program do it; returns the number of blocks and bytes that it says it has allocated."""
    assert program.stdin
    assert program.stdout
    program.stdin.write(f"{name}\n")
    program.stdin.flush()
    _, count, size = program.stdout.readline().split()
    return int(count), int(size)


class Tasks:
    """Ends a recording when the program has done its tasks. The first wait is when the recording has begun."""

    def __init__(self, program: Program, *names: str) -> None:
        self._program, self._names = program, names
        self.truth: list[tuple[int, int]] = []

    def wait(self, timeout: float) -> bool:
        self.truth = self.truth or [task(self._program, name) for name in self._names]
        return True


def record(pid: int, options: HeapOptions, stop: Stop) -> HeapRecording:
    """Record with the library."""
    recorded = pprofpy.record_heap(
        pid, options.duration_ns and options.duration_ns / NS_PER_S, engine=options.engine, stop=stop,
        sample_bytes=options.sample_bytes, frames=options.frames, snapshots=options.snapshots,
        collect=options.collect, types=options.types,
    )  # fmt: skip
    return HeapRecording.from_recording(recorded.wait())


def record_tasks(program: Program, options: HeapOptions, *names: str) -> tuple[HeapRecording, list[tuple[int, int]]]:
    """Record while the program does tasks; also returns what it says of each."""
    tasks = Tasks(program, *names)
    recording = record(program.pid, options, tasks)
    return recording, tasks.truth


@cache
def line_of(name: str) -> int:
    """The line of heap_load.py that allocates in a task."""
    return next(number for number, line in enumerate(LOAD.read_text().splitlines(), 1) if f"# line: {name}" in line)


def at_line(profile: Profile, name: str) -> dict[str, int]:
    """Sample type -> sum over the samples whose innermost frame is a task's line."""
    sums = [0] * len(profile.sample_types)
    for stack, values, _ in profile.samples():
        if stack[0].function.filename == str(LOAD) and stack[0].line == line_of(name):
            sums = [a + b for a, b in zip(sums, values, strict=True)]
    return dict(zip((one.type for one in profile.sample_types), sums, strict=True))


def first_line(profile: Profile, sample_type: str = "inuse_space") -> tuple[str, int]:
    """The place with the highest flat value: file and line."""
    column = profile.value_index(sample_type)
    places: dict[tuple[str, int], int] = {}
    for stack, values, _ in profile.samples():
        key = stack[0].function.filename, stack[0].line
        places[key] = places.get(key, 0) + values[column]
    return max(places, key=lambda place: places[place])


def off_by(found: int, truth: int) -> float:
    """The relative error."""
    return abs(found - truth) / truth


def sampler_state(pid: int) -> tuple[int, ...]:
    """Of the sampler in a process: is on, has tables, hooks RAW, MEM, OBJ, NumPy; empty if it is not loaded."""
    code = "import sys\nm = sys.modules.get('_pprofpy_sampler')\nresult = repr(m.state() if m else ())"
    return tuple(ast.literal_eval(str(attach.run(open_target(pid), code).result)))


def wait_for_recording(command: Program, is_on: Callable[[], bool]) -> None:
    """Poll, not too often, since each look is an attach, until the command has begun to record."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_on():
        if command.poll() is not None:
            assert command.stderr
            pytest.fail(f"it ended with status {command.returncode}: {command.stderr.read()}")
        assert time.monotonic() < deadline, "it has not begun"
        time.sleep(0.1)


def is_sampled(pid: int) -> bool:
    """Does the sampler's watch run there, and have its hooks been put in since?"""
    return "pprofpy" in thread_names(pid) and sampler_state(pid)[:1] == (1,)


def is_traced(pid: int) -> bool:
    """Does tracemalloc trace there?"""
    code = "import _tracemalloc\nresult = str(_tracemalloc.is_tracing())"
    return attach.run(open_target(pid), code).result == "True"


def open_files(pid: int) -> int:
    """How many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def thread_names(pid: int) -> list[str]:
    """The kernel's names for the threads of a process."""
    return [thread.name for thread in open_target(pid).threads()]
