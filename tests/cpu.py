"""What tests of the kernel's CPU engine share: recordings, and programs on every interpreter that there is."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from pprofpy.collectors.sampling.cpu import CpuRecorder, CpuRecorderOptions
from pprofpy.model.profile import Profile, Sample
from pprofpy.session import Recorder
from tests.conftest import FREE_PYTHONS, PATIENCE_S, PYTHONS, Start, installed_versions, interpreter

VERSIONS = (*PYTHONS, *FREE_PYTHONS, "system")


@contextmanager
def recorder(rate_hz: int = 5000, kind: type[CpuRecorder] = CpuRecorder, **options: Any) -> Iterator[CpuRecorder]:
    with kind(CpuRecorderOptions(rate_hz=rate_hz, **options)) as found:
        yield found


def let_run(recording: Recorder, seconds: float) -> None:
    """Poll until so much time is over."""
    poll_until(recording, lambda: False, seconds)


def poll_until(recording: Recorder, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Poll until something has happened, or so much time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        recording.poll()
        time.sleep(0.05)


def installed(start: Start, *words: str, without: Sequence[str] = (), **options: object) -> dict[int, str]:
    """The same program on every interpreter that there is: pid -> version; there is one at least.

    Those that are ready are stopped until all are: they take every CPU that there is from those that begin.
    """
    found = {}
    for version in installed_versions(version for version in VERSIONS if version not in without):
        pid = start(interpreter(version), *words, **options).pid
        os.kill(pid, signal.SIGSTOP)
        found[pid] = version
    for pid in found:
        os.kill(pid, signal.SIGCONT)
    return found


def by_thread(profile: Profile) -> dict[int, list[Sample]]:
    """tid -> its samples."""
    found: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in profile.samples():
        found[next(int(label.value) for label in sample.labels if label.key == "tid")].append(sample)
    return found


def shares(samples: Sequence[Sample], key: str = "leaf") -> dict[str, float]:
    """Percent of all samples by function: of the leaf, or of every function that occurs in the stack."""
    counts: Counter[str] = Counter()
    for stack, values, _ in samples:
        names = [frame.function.system_name.rpartition(".")[2] for frame in stack]  # not qualified before 3.11
        for name in set(names) if key == "cum" else names[:1]:
            counts[name] += values[0]
    total = sum(sample.values[0] for sample in samples) or 1
    return {name: 100 * count / total for name, count in counts.items()}


def differences(who: str, measured: dict[str, float], expected: dict[str, float], tolerance: float) -> list[str]:
    return [
        f"{who}: {name} {measured.get(name, 0):.1f} instead of {share}"
        for name, share in expected.items()
        if abs(measured.get(name, 0) - share) > tolerance
    ]


def time_ns(profile: Profile, tid: int, function: str = "") -> int:
    """Of a thread, in a function and what it calls."""
    samples = by_thread(profile)[tid]
    return sum(values[1] for stack, values, _ in samples if not function or function in names_in(stack))


def names_in(stack: Any) -> list[str]:
    return [frame.function.system_name.rpartition(".")[2] or frame.function.name for frame in stack]


def has_written(stream: IO[str] | None) -> Callable[[], bool]:
    assert stream is not None
    return lambda: bool(select.select([stream], [], [], 0)[0])


def say_go(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    program.stdin.write("go\n")
    program.stdin.flush()


def kernel_lies_on_native_on_python(profile: Profile) -> None:
    """The kernel's functions are on top of each stack, and some stack has all three kinds."""
    order = [kinds(profile, list(profile.stacks[index])) for index in range(len(profile.stacks))]
    assert all("k" not in kind.lstrip("k") for kind in order), order
    assert any({"k", "n", "p"} <= set(kind) for kind in order), order


def kinds(profile: Profile, locations: list[int]) -> str:
    """Of each place in a stack, leaf-first: kernel, native or Python."""
    files = [profile.mappings[profile.locations[index].mapping].filename for index in locations]
    return "".join({"[kernel]": "k", "[python]": "p"}.get(file, "n") for file in files)
