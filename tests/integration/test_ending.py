"""A recording ends when it was to, however late pprofpy gets a CPU to end it: the kernel's programs know when."""

from __future__ import annotations

import sys
import time

import pytest

from pprofpy.collectors.kernel.recorder import KernelRecorder
from pprofpy.collectors.trace import EventRecorder
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, Start
from tests.kernel_programs import VARIANTS

pytestmark = pytest.mark.ebpf

LENGTH_NS, LATE_NS = 300_000_000, 300_000_000


def wait_until(moment_ns: int) -> None:
    time.sleep(max(moment_ns - time.monotonic_ns(), 0) / 1e9)


@pytest.mark.parametrize(
    ("variant", "table"),
    [
        ("cpu", "samples"),
        ("cpu --idle", "intervals"),
        ("off-cpu", "places"),
        ("gil", "holds"),
        ("gil", "threads"),
        ("sched-latency", "histogram"),
        ("events", "hits"),
    ],
)
def test_nothing_counts_that_comes_after_the_end(variant: str, table: str, start: Start) -> None:
    process = start(sys.executable, str(PROGRAMS / "busy.py"))
    with VARIANTS[variant](process.pid) as recorder:
        assert isinstance(recorder, KernelRecorder)
        recorder.watch(open_target(process.pid))
        end_ns = time.monotonic_ns() + LENGTH_NS
        recorder.end_at(end_ns)
        wait_until(end_ns + LATE_NS // 10)  # what had begun before is counted by now
        keys, values = (part.copy() for part in recorder.program._tables[table].items())
        wait_until(end_ns + LATE_NS)
        later_keys, later_values = recorder.program._tables[table].items()
        profile = recorder.finish().profile

    assert len(keys)
    assert (sorted(keys.tolist()), sorted(values.tolist())) == (
        sorted(later_keys.tolist()),
        sorted(later_values.tolist()),
    )
    assert profile.duration_ns <= end_ns - recorder.start_ns


def test_no_call_counts_that_comes_after_the_end(start: Start) -> None:
    process = start(sys.executable, str(PROGRAMS / "busy.py"))
    with VARIANTS["trace -s"](process.pid) as recorder:
        assert isinstance(recorder, EventRecorder)
        recorder.watch(open_target(process.pid))
        end_ns = time.monotonic_ns() + LENGTH_NS
        recorder.end_at(end_ns)
        wait_until(end_ns + LATE_NS // 10)
        counted = recorder.summary()
        wait_until(end_ns + LATE_NS)
        later = recorder.summary()

    before, after = (sorted((one.tid, one.event, one.count) for one in summary.stats) for summary in (counted, later))
    assert before
    assert before == after
    assert later.duration_ns == end_ns - recorder.log.start_ns


def test_samples_are_expected_up_to_the_end_only(start: Start) -> None:
    """CPU time is read when there is a CPU to read it: later."""
    process = start(sys.executable, str(PROGRAMS / "busy.py"))
    with VARIANTS["cpu"](process.pid) as recorder:
        recorder.watch(open_target(process.pid))
        end_ns = time.monotonic_ns() + LENGTH_NS
        recorder.end_at(end_ns)
        wait_until(end_ns)
        recorder.poll()
        asked = recorder.collected().asked  # type: ignore[attr-defined]  # a KernelRecorder
        wait_until(end_ns + LATE_NS)
        collection = recorder.finish().profile.collection

    assert 0 < collection.asked == asked
