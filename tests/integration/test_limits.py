"""What does not fit into the kernel's tables is counted, under its name, and told (docs/limits.md)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from pprofpy.collectors.kernel import program as loader
from pprofpy.collectors.kernel.bytecode import MapShape
from pprofpy.collectors.sampling.cpu import CpuRecorder, CpuRecorderOptions
from pprofpy.model.profile import Collection
from pprofpy.reports import header, losses
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, Start, beside_others
from tests.kernel_programs import VARIANTS

pytestmark = beside_others

LONGEST_S = 20
RING_BYTES = 1 << 12


@pytest.mark.parametrize(
    ("variant", "table", "room", "loss"),
    [
        ("cpu", "samples", 1, "samples_full"),
        ("cpu", "python_records", RING_BYTES, "python_stacks_full"),
        ("cpu", "python_records", RING_BYTES, "python_names_full"),
        ("cpu --gil -K", "kernel_stacks", 1, "kernel_stacks_full"),
        ("cpu --idle", "threads", 2, "untracked_switches"),
        ("cpu --idle", "threads", 2, "threads_full"),
        ("cpu --native -K", "native_records", RING_BYTES, "native_full"),
        ("off-cpu", "threads", 2, "untracked_switches"),
        ("off-cpu", "threads", 2, "threads_full"),
        ("off-cpu", "places", 1, "off_cpu_full"),
        ("off-cpu -K --min", "kernel_stacks", 1, "kernel_stacks_full"),
        ("off-cpu --wakers", "targets", 1, "children_full"),
        ("gil", "threads", 2, "untracked_switches"),
        ("gil", "waits", 1, "waits_full"),
        ("gil", "holds", 1, "holds_full"),
        ("gil", "blocks", 1, "blocks_full"),
        ("sched-latency", "histogram", 1, "histogram_full"),
        ("sched-latency", "threads", 2, "untracked_switches"),
        ("sched-latency --stacks", "stack_waits", 1, "stacks_full"),
        ("sched-latency --stacks", "targets", 1, "children_full"),
        ("events", "hits", 1, "events_full"),
        ("trace", "pending_calls", 1, "syscalls_under_way"),
        ("trace", "calls", RING_BYTES, "syscalls"),
        ("trace -s", "summaries", 1, "summary_rows"),
        ("trace -s", "buckets", 1, "summary_durations"),
    ],
)
def test_what_finds_no_room_is_counted_and_told(
    variant: str, table: str, room: int, loss: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = loader._make_map, []

    def make_small(shape: MapShape) -> int:
        made.append(shape.name)
        return make(replace(shape, entries=room) if shape.name == table else shape)

    monkeypatch.setattr(loader, "_make_map", make_small)
    process = start(sys.executable, str(PROGRAMS / "busy.py"))

    found = recorded_until(variant, process.pid, loss)

    assert table in made
    assert found.losses.get(loss, 0) > 0, found.losses
    words = losses.WORDS[loss].split("{}")[0].strip()
    assert any(words.lower() in line.lower() for line in header.losses(found)), header.losses(found)


LARGE = """
import ctypes
class Large(ctypes.Structure):
    _fields_ = [("content", ctypes.c_char * (200 << 10))]
large, call = Large(), ctypes.CDLL(None).getppid
print("ready", flush=True)
while True:
    call(large)
"""
"""Passes on its stack what is larger than all that is copied of a stack."""


def test_native_stacks_larger_than_what_is_copied_are_counted_and_told(start: Start) -> None:
    found = recorded_until("cpu --native -K", start(sys.executable, "-c", LARGE).pid, "native_cut")

    count = found.losses["native_cut"]
    assert f"Note: {count} native stacks reached beyond what is copied of them." in header.losses(found)


HUGE = """
import os, sys, time
name, file = "name" * 100, "/srv/" + "folder/" * 100 + "huge.py"
space = {"wait": lambda: 0}
exec(compile(f"def {name}(): burn()", file, "exec"), space)
def burn():
    print("ready", flush=True)
    sys.stdin.readline()
    while time.thread_time() < 0.2 or sys.argv[1:]:
        pass
    os._exit(0)
burn.__code__ = burn.__code__.replace(co_linetable=bytes([0xF0, 0]) * (1 << 20))
space["burn"] = burn
space[name]()
"""
"""Its names are longer than what the kernel sends, its line table larger than what is read."""


@pytest.mark.parametrize("has_ended", [False, True], ids=["lives", "has ended"])
def test_names_and_line_tables_beyond_what_is_sent_are_read_or_marked_and_told(start: Start, has_ended: bool) -> None:
    process = start(sys.executable, "-c", HUGE, *([] if has_ended else ["goes on"]), stdin=subprocess.PIPE)
    assert process.stdin
    with CpuRecorder(CpuRecorderOptions(rate_hz=500)) as recorder:
        recorder.watch(open_target(process.pid))
        process.stdin.write("\n")
        process.stdin.flush()
        end = time.monotonic() + 0.3
        while process.poll() is None if has_ended else time.monotonic() < end:
            if not has_ended:
                recorder.poll()
            time.sleep(0.05)
        profile = recorder.finish().profile

    stack = next(stack for stack, _, _ in profile.samples() if stack[0].function.name == "<string>.burn")
    name, file = "name" * 100, "/srv/" + "folder/" * 100 + "huge.py"
    expected = (f"{name[:256]}…", f"{file[:512]}…") if has_ended else (name, file)
    assert (stack[1].function.system_name, stack[1].function.filename) == expected
    assert stack[0].line == 6
    (told,) = [line for line in losses.lines(profile.collection) if "line table" in line]
    assert told == "1 line table could not be read: its functions' samples count for the first line."


DEEP_AND_NEW = """
import os, sys, time
def f99():
    print("ready", flush=True)
    sys.stdin.readline()
    while time.thread_time() < 0.2:
        pass
    os._exit(0)
for number in range(99):
    exec(f"def f{number}(): f{number + 1}()")
f0()
"""


def test_new_code_far_from_the_leaf_of_a_process_that_has_ended_is_counted_and_told(start: Start) -> None:
    process = start(sys.executable, "-c", DEEP_AND_NEW, stdin=subprocess.PIPE)
    with CpuRecorder(CpuRecorderOptions(rate_hz=1000)) as recorder:
        recorder.watch(open_target(process.pid))
        process.communicate("\n")
        profile = recorder.finish().profile

    stacks = [[frame.function.name.removeprefix("<string>.") for frame in stack] for stack, _, _ in profile.samples()]
    deep = next(names for names in stacks if names[0] == "f99")
    assert deep == [f"f{number}" for number in range(99, 35, -1)] + ["[unreadable]"] * 37
    assert "37 functions were gone before they could be named." in losses.lines(profile.collection)


def recorded_until(variant: str, pid: int, loss: str) -> Collection:
    """What a recording says of itself: one of half a second, or more until it has lost something."""
    deadline, length_s = time.monotonic() + LONGEST_S, 0.5
    while True:
        with VARIANTS[variant](pid) as recorder:
            recorder.watch(open_target(pid))
            end = time.monotonic() + length_s
            while time.monotonic() < end:
                recorder.poll()
                time.sleep(0.05)
            os.kill(pid, signal.SIGSTOP)  # to take many probes out of the kernel takes seconds, which nobody records
            found = recorder.finish().profile.collection
        os.kill(pid, signal.SIGCONT)
        if found.losses.get(loss) or time.monotonic() > deadline:
            return found
        length_s *= 2
