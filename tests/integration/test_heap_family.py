"""`pprofpy heap --subprocesses`: each process's memory under its pid, also of those that come and go meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from pprofpy.collectors.heap import HeapOptions
from pprofpy.collectors.heap_family import HeapFamily
from pprofpy.collectors.heapagent.link import sampler_library
from pprofpy.errors import UsageError
from pprofpy.model.heap import HeapRecording
from pprofpy.model.recording import Recording
from pprofpy.target import open_target
from tests.conftest import CommandLine, Start, wait_until

pytestmark = pytest.mark.skipif(sampler_library() is None, reason="there was no C compiler")

MB = 1 << 20
FAMILY = """
import os, signal, sys, time
kept = []
def keep_in_parent(): return bytearray(4 << 20)
def keep_in_child(): return bytearray(8 << 20)
def work(*_):
    kept.append(keep_in_child())
    print("kept", flush=True)
def live():
    signal.signal(signal.SIGUSR1, work)
    signal.signal(signal.SIGUSR2, lambda *_: sys.exit())
    print(os.getpid(), flush=True)
    while True:
        time.sleep(60)
print("ready", flush=True)
for line in sys.stdin:
    what, pid = line.split()
    if what == "fork":
        if not os.fork():
            live()
    elif what == "keep":
        kept.append(keep_in_parent())
        print("kept", flush=True)
    elif what == "work":
        os.kill(int(pid), signal.SIGUSR1)
    elif what == "end":
        os.kill(int(pid), signal.SIGUSR2)
        os.waitpid(int(pid), 0)
        print("over", flush=True)
"""


def tell(family: subprocess.Popen[str], what: str, pid: int = 0) -> str:
    assert family.stdin
    assert family.stdout
    family.stdin.write(f"{what} {pid}\n")
    family.stdin.flush()
    return family.stdout.readline().strip()


def megabytes(recording: Recording, sample_type: str) -> dict[tuple[int, str], int]:
    """(pid, function) -> whole megabytes, of what the program keeps."""
    profile, found = recording.profile, Counter[tuple[int, str]]()
    column = profile.value_index(sample_type)
    for stack, values, labels in profile.samples():
        (pid,) = (label.value for label in labels if label.key == "pid")
        if stack and stack[0].function.system_name.startswith("keep_in"):
            assert isinstance(pid, int)
            found[pid, stack[0].function.system_name] += values[column]
    return {place: round(size / MB) for place, size in found.items()}


def test_each_process_has_its_memory_under_its_pid(start: Start) -> None:
    family = start(sys.executable, "-c", FAMILY, stdin=subprocess.PIPE)
    first = int(tell(family, "fork"))
    with HeapFamily(HeapOptions(engine="sampling", sample_bytes=64 << 10)) as recorder:
        recorder.watch(open_target(family.pid))
        assert tell(family, "keep") == tell(family, "work", first) == "kept"
        second = int(tell(family, "fork"))

        def is_entered() -> bool:
            recorder.poll()
            return second in recorder._living

        wait_until(is_entered, "entering the new child")
        assert tell(family, "work", second) == "kept"
        assert tell(family, "end", first) == "over"
        recorder.poll()
        window, last = recorder.window(), recorder.finish()

    parent = family.pid, "keep_in_parent"
    for recording in window, last:
        assert megabytes(recording, "inuse_space") == {
            parent: 4, (first, "keep_in_child"): 0, (second, "keep_in_child"): 8,
        }  # fmt: skip
        assert megabytes(recording, "alloc_space") == {
            parent: 4, (first, "keep_in_child"): 8, (second, "keep_in_child"): 8,
        }  # fmt: skip
    found = HeapRecording.from_recording(last)
    assert found.processes == 2
    assert found.memory.uss > 12 * MB
    pids = ", ".join(map(str, sorted([family.pid, first, second])))
    assert last.profile.collection.notes == (
        f"The label pid tells them apart: {pids}.",
        "1 process ended meanwhile: what was allocated there counts as allocated, not as in use.",
    )


def test_the_command_sums_up_a_family(start: Start, cli: CommandLine) -> None:
    family = start(sys.executable, "-c", FAMILY, stdin=subprocess.PIPE)
    child = int(tell(family, "fork"))

    done = cli("heap", "--pid", str(family.pid), "-s", "-d", "300ms", "--json")

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert f"tells them apart: {', '.join(map(str, sorted([family.pid, child])))}." in done.stdout
    assert said["memory"]["uss_bytes"] > 0
    shown = cli("show", said["path"])
    assert "Memory of 2 processes: " in shown.stdout


@pytest.mark.parametrize("option", [{"types": True}, {"snapshots": 2}])
def test_what_looks_into_one_process_is_refused(option: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="looks into one process"):
        HeapFamily(HeapOptions(**option))  # type: ignore[arg-type]
