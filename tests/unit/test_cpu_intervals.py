"""Threads that were blocked before they were watched: what is kept of them, and for how long."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pprofpy.collectors.kernel.label_options import NO_LABELS
from pprofpy.collectors.kernel.switches import OFF_CPU, ON_CPU, TIMES
from pprofpy.collectors.pystacks.blocked import BlockedThread
from pprofpy.collectors.sampling import intervals
from pprofpy.collectors.sampling.intervals import _INTERVAL, _THREAD, Intervals
from pprofpy.model.profile import Frame, Function


class Table:
    """A table of the kernel's."""

    def __init__(self, value: np.dtype[Any]) -> None:
        self.rows: dict[int, Any] = {}
        self._value = value

    def put_new(self, key: int, value: Any) -> bool:
        return self.rows.setdefault(key, value) is value

    def items(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return np.array(list(self.rows), np.uint32), np.array(list(self.rows.values()), self._value)

    def clear(self, keys: object) -> None:
        self.rows.clear()


class NoTimes(Table):
    def items(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return np.zeros(0, _INTERVAL), np.zeros(0, self._value)


def blocked(tid: int) -> BlockedThread:
    return BlockedThread(tid, b"", 0, False, 0, (), (Frame(Function(f"waits_in_{tid}")),), ())


def test_a_thread_that_waits_no_more_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = {"threads": Table(_THREAD), "intervals": NoTimes(TIMES)}
    program: Any = SimpleNamespace(table=lambda name, *_: tables.get(name))
    monkeypatch.setattr(intervals, "blocked_threads", lambda pid, runtime, wanted: [blocked(pid), blocked(pid + 1)])
    monkeypatch.setattr("pprofpy.target.procfs.tids", lambda pid: [])
    ours, threads = Intervals(program, NO_LABELS), tables["threads"].rows

    for number in range(1, 50):  # processes that start and end
        process: Any = SimpleNamespace(number=number, runtime=SimpleNamespace(pid=10 * number))
        ours.seed_blocked_threads(SimpleNamespace(since=lambda _, process=process: [process]))  # type: ignore[arg-type]
        begun = {tid: int(entry["stack"]) for tid, entry in threads.items() if entry["track"]["where"] == OFF_CPU}
        ours.take(0)
        for tid, stack in begun.items():
            seed = ours.seed_of(stack)
            assert seed, "it has just been taken, and is to be read"
            assert seed.tid == tid
        threads.pop(10 * number)  # one ends; the other goes on, and waits elsewhere three processes later
        if number > 3:
            threads[10 * number - 29]["track"]["where"] = ON_CPU

    assert len(ours._seeds) <= 10
    assert ours.seed_of(2) is None
