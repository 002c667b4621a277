"""Processes in places that are hard to enter, or that lack what an agent may want there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pprofpy.collectors.heap import HeapOptions
from pprofpy.collectors.heapagent.link import sampler_library
from tests.conftest import PROGRAMS, Start, interpreter, wait_until
from tests.heap import LOAD, Program, at_line, off_by, open_files, record_tasks

needs_sampler = pytest.mark.skipif(sampler_library() is None, reason="there was no C compiler")
ENGINES = [pytest.param("sampling", marks=needs_sampler), "tracemalloc"]


@pytest.fixture
def surrounded(start: Start, tmp_path: Path) -> Callable[[str], Program]:
    """Start heap_load.py in one of the surroundings that programs/surrounded.py can make."""

    def start_surrounded(surroundings: str) -> Program:
        words = [interpreter("system"), str(PROGRAMS / "surrounded.py"), surroundings, str(tmp_path)]
        tried = subprocess.run(words, capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"cannot be made here: {tried.stderr.strip().rpartition(chr(10))[2]}")
        return start(*words, str(LOAD), stdin=subprocess.PIPE)

    return start_surrounded


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make such surroundings")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "surroundings", ["root_without_proc", "no_code_and_nothing_to_write", "another_user", "not_dumpable"]
)
def test_a_heap_is_recorded_there(surroundings: str, engine: str, surrounded: Callable[[str], Program]) -> None:
    check_recording(surrounded(surroundings), engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_heap_is_recorded_with_another_c_library(engine: str, start: Start) -> None:
    """scripts/musl_python.sh builds one."""
    check_recording(start(interpreter("3.11-musl"), str(LOAD), stdin=subprocess.PIPE), engine)


def check_recording(program: Program, engine: str) -> None:
    """The leak is there, and nothing is left behind."""
    files = open_files(program.pid)

    recording, _ = record_tasks(program, HeapOptions(engine=engine, sample_bytes=64 << 10), "leak")

    assert off_by(at_line(recording.profile, "leak")["inuse_space"], 40_570_000) < 0.2
    wait_until(lambda: open_files(program.pid) == files, "the control file is closed")
