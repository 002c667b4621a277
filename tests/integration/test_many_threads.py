"""Processes of more threads than the kernel's walk goes through one by one: all of them have their stacks."""

from __future__ import annotations

import re
import time

import pytest

from pprofpy.collectors.cpython.runtime import find_runtime
from pprofpy.collectors.cpython.threadslot import thread_slot
from pprofpy.collectors.pystacks import processes as registry
from pprofpy.collectors.sampling.cpu import NO_PYTHON
from pprofpy.reports import header
from pprofpy.target import open_target
from tests.conftest import PATIENCE_S, PROGRAMS, Start, beside_others, interpreter
from tests.cpu import VERSIONS, by_thread, let_run, recorder

THREADS, WALKED = 1000, 448

pytestmark = beside_others  # what strikes a CPU's clock is lost to nobody


@pytest.mark.parametrize("version", VERSIONS)
def test_every_sample_of_a_thousand_threads_has_its_stack(version: str, start: Start) -> None:
    target = open_target(start(interpreter(version), str(PROGRAMS / "crowd.py"), str(THREADS)).pid)

    seen: set[int] = set()
    without: set[int] = set()
    with recorder(2000) as recording:
        recording.watch(target)
        assert recording.remarks == []
        deadline = time.monotonic() + PATIENCE_S
        while len(seen) <= WALKED and time.monotonic() < deadline:
            let_run(recording, 0.5)
            profile = recording.window().profile
            samples = by_thread(profile)
            seen |= samples.keys()
            without |= {tid for tid, found in samples.items() if any(NO_PYTHON in one.stack for one in found)}

    assert len(seen) > WALKED
    assert target.pid in seen, "the main thread is the last one in Python's list"
    assert not without, profile.collection
    assert "python_threads_beyond" not in profile.collection.losses


def test_without_glibc_what_is_missing_is_counted_under_its_name(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_target(start(interpreter("3.11"), str(PROGRAMS / "crowd.py"), str(THREADS)).pid)
    monkeypatch.setattr(registry, "thread_slot", lambda runtime: 0)

    with recorder(2000) as recording:
        recording.watch(target)
        (remark,) = recording.remarks
        let_run(recording, 2.5)
        profile = recording.finish().profile

    assert re.search(rf"has {THREADS + 1 - WALKED:,} threads more than the {WALKED} ", remark)
    assert profile.collection.losses["python_threads_hidden"] == THREADS + 1 - WALKED
    assert f"Note: {THREADS + 1 - WALKED} threads are beyond" in "\n".join(header.losses(profile.collection))
    assert profile.collection.losses["python_threads_beyond"] > 0
    assert profile.collection.errors > 0


@pytest.mark.ebpf(needs="compiler")  # it reads memory, no more
@pytest.mark.parametrize("version", VERSIONS)
def test_the_slot_is_the_same_for_few_threads_and_many(version: str, start: Start) -> None:
    alone, few, many = (
        thread_slot(find_runtime(open_target(start(interpreter(version), str(PROGRAMS / "crowd.py"), count).pid)))
        for count in ("0", "3", "600")
    )

    assert few == many != 0
    assert alone in (0, many)  # from 3.15 on another variable has the state of a thread that runs, too: not told apart
