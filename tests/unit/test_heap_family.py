"""Heaps of several processes as one: what has ended is kept within bounds, and is no longer in use."""

from __future__ import annotations

from typing import cast

from pprofpy.collectors.heap import HeapOptions, HeapRecorder
from pprofpy.collectors.heap_family import HeapFamily
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.heap import HeapRecording, MemoryUse
from pprofpy.model.profile import Collection, Frame, Function, Profile, ValueType
from pprofpy.model.recording import Recording
from pprofpy.target import Target

TYPES = tuple(ValueType(*one.split("/")) for one in ("alloc_space/bytes", "inuse_space/bytes"))
PROCESSES = 200


def heap_of(pid: int) -> Profile:
    builder = ProfileBuilder(TYPES)
    builder.add((Frame(Function(f"work_{pid % 3}")),), (10, 4))
    profile = builder.build()
    profile.duration_ns = pid
    profile.collection = Collection(target=f"worker (pid {pid}), since attach")
    return profile


class Process:
    """Stands for a target and for its recorder."""

    interpreter = name = "worker"

    def __init__(self, pid: int, *, is_over: bool) -> None:
        self.pid, self._is_over = pid, is_over

    def is_alive(self) -> bool:
        return not self._is_over

    def finish(self) -> Recording:
        return HeapRecording(heap_of(self.pid), memory=MemoryUse(3, 2, 1, -1, -1, 1)).to_recording({})

    def close(self) -> None:
        pass


def test_processes_that_have_ended_are_summed_up_when_they_are_many() -> None:
    family = HeapFamily(HeapOptions())
    family._roots.append(cast(Target, Process(1, is_over=False)))
    for pid in range(2, PROCESSES):
        one = Process(pid, is_over=True)
        family._living[pid] = cast(Target, one), cast(HeapRecorder, one)
        family._let_go()
    for pid in (1, PROCESSES):
        one = Process(pid, is_over=False)
        family._living[pid] = cast(Target, one), cast(HeapRecorder, one)

    found = family.finish()

    profile = found.profile
    assert [profile.total(index) for index in range(2)] == [10 * PROCESSES, 2 * 4]
    assert len(profile.label_sets) < 70
    assert len(profile.collection.target) < 100
    assert profile.duration_ns == PROCESSES
    told, untold = profile.collection.notes[-2:]
    assert f"{PROCESSES - 2} processes ended meanwhile" in told
    assert untold == f"The first {PROCESSES - 2 - len(family._ended)} of these have no label pid: they are too many."
    heap = HeapRecording.from_recording(found)
    assert (heap.processes, heap.memory) == (2, MemoryUse(6, 4, 2, -1, -1, 2))
