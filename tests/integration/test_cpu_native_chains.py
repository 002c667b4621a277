"""`pprofpy cpu --native`: Python -> C -> Python in the order of calls, on every interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pprofpy.collectors.sampling.cpu import CpuRecorderOptions
from pprofpy.collectors.sampling.native import NativeRecorder
from pprofpy.collectors.unwind.wholestack import UNKNOWN
from pprofpy.model.profile import Sample
from pprofpy.target import open_target
from tests.chains import WAYS, judged
from tests.conftest import PROGRAMS, Start, compiled_library, interpreter, rounds_until_right
from tests.cpu import by_thread, differences, installed, let_run, shares

pytestmark = [
    pytest.mark.ebpf,
    pytest.mark.skipif(not (shutil.which("cc") and shutil.which("c++")), reason="no compiler of C and C++"),
]

STRIPPED = ("system", "3.14", "3.15")
"""Debian's: their own functions have no names."""

ALWAYS = [way for way in WAYS if way not in ("by_cython", "by_ufunc")]
MOST_MARKED, MOST_WRONG = 2.0, 0.2
"""In percent of all samples. Wrong may be what a tick meets between two instructions of a call or a return."""


@pytest.fixture
def libraries(tmp_path: Path) -> list[str]:
    classes = tmp_path / "libclasses.so"
    flags = ["-O2", "-fomit-frame-pointer", "-shared", "-fPIC"]
    subprocess.run(["c++", *flags, "-o", classes, PROGRAMS / "chains.cpp"], check=True)
    return [str(compiled_library(tmp_path, "chains")), str(classes)]


def hold(programs: dict[int, str], ways: list[str], rate_hz: int = 500) -> None:
    """Record programs (pid -> version) until each has the shares and stacks that it must have."""
    expected = {way: 100 / len(ways) for way in ways} | {"innermost": 100.0, "plain": 50.0}
    samples: dict[int, list[Sample]] = {pid: [] for pid in programs}
    kinds: dict[int, Counter[str]] = {pid: Counter() for pid in programs}
    mistakes: dict[int, Counter[str]] = {pid: Counter() for pid in programs}
    with NativeRecorder(CpuRecorderOptions(rate_hz=rate_hz)) as recording:
        for pid in programs:
            recording.watch(open_target(pid))
        let_run(recording, 0.5)
        recording.window()

        def measure() -> list[str]:
            let_run(recording, 2)
            profile, wrong = recording.window().profile, []
            new = by_thread(profile)
            for pid, version in programs.items():
                found, mistaken = judged(profile, [pid], is_named=version not in STRIPPED)
                kinds[pid] += found
                mistakes[pid] += mistaken
                # What found no room, when we had no CPU for long, is counted elsewhere.
                samples[pid] += [sample for sample in new[pid] if sample.stack[0] != UNKNOWN[0]]
                total = kinds[pid].total()
                chance = 100 / max(1, total) ** 0.5
                wrong += differences(version, shares(samples[pid], "cum"), expected, tolerance=1 + chance)
                if total < 200 or kinds[pid]["marked"] > (MOST_MARKED / 100) * total:
                    wrong.append(f"{version}: {kinds[pid]['marked']} of {total} marked: {profile.collection.losses}")
                if kinds[pid]["wrong"] > (MOST_WRONG / 100) * total + 1:
                    wrong.append(f"{version}: {kinds[pid]['wrong']} of {total} wrong: {mistakes[pid].most_common(3)}")
            return wrong

        rounds_until_right(measure, rounds=15)


def test_whole_stacks_are_in_the_order_of_calls_on_every_interpreter(start: Start, libraries: list[str]) -> None:
    hold(installed(start, str(PROGRAMS / "chains.py"), *libraries), ALWAYS)


def test_so_they_are_through_code_that_the_interpreter_makes(start: Start, libraries: list[str]) -> None:
    running = start(interpreter("3.15"), str(PROGRAMS / "chains.py"), *libraries, env={**os.environ, "PYTHON_JIT": "1"})

    hold({running.pid: "3.15"}, ALWAYS)


def test_so_they_are_through_cython_and_numpy(start: Start, libraries: list[str], tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    build_cython(tmp_path)
    running = start(
        sys.executable, str(PROGRAMS / "chains.py"), *libraries, "all", env={**os.environ, "PYTHONPATH": str(tmp_path)}
    )

    hold({running.pid: "this"}, [*WAYS])


def build_cython(folder: Path) -> None:
    """tests/programs/chains_cython.pyx, for this interpreter."""
    pytest.importorskip("Cython")
    import sysconfig

    headers = sysconfig.get_paths()["include"]
    if not Path(headers, "Python.h").exists():
        pytest.skip("this Python has no headers")
    source = folder / "chains_cython.c"
    subprocess.run([sys.executable, "-m", "cython", "-3", PROGRAMS / "chains_cython.pyx", "-o", source], check=True)
    library = folder / f"chains_cython{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", f"-I{headers}", "-o", library, source], check=True)
