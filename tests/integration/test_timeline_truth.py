"""The timeline against a program's own clocks."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import pytest

from pprofpy.collectors.bpf.processes import Scope
from pprofpy.collectors.events import EventRecorder, Options
from pprofpy.collectors.tracepoints import select
from pprofpy.events.scheduling import calls_by_thread, to_trace
from pprofpy.formats import chrome
from pprofpy.timeline import State, build
from tests.conftest import PROGRAMS, Start
from tests.integration.sched_reference import needs_ebpf

pytestmark = needs_ebpf


def test_running_and_blocked_are_what_the_programs_own_clocks_say(start: Start) -> None:
    # Given a thread that sleeps and computes, and measures both
    process = start(sys.executable, str(PROGRAMS / "clocked.py"), stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    names = ["sched:sched_switch", "sched:sched_waking", "sched:sched_wakeup_new", "!clock_gettime", "*"]
    with EventRecorder(Options(select(names), Scope(process.pid))) as recorder:
        process.stdin.write("\n")
        process.stdin.flush()
        own = json.loads(process.stdout.readline())
        batch = recorder.stop()
        collection = recorder.collection()

    trace = to_trace(recorder.log, [batch], 0, collection)
    timeline = build(trace, calls_by_thread([batch]))

    # Then running, and blocked or runnable within the sleeps, add up to the same
    spans = timeline.spans[own["tid"]]
    running_ns = sum(span.duration_ns for span in spans if span.state is State.RUNNING)
    sleeping = [span for span in spans if span.call == "clock_nanosleep"]
    late = [after for span, after in pairwise(spans) if span in sleeping]
    asleep_ns = sum(span.duration_ns for span in (*sleeping, *late))
    assert collection.dropped == 0
    assert len(sleeping) == 20
    assert {span.waker for span in sleeping} == {"timer/irq"}
    assert running_ns == pytest.approx(own["cpu_ns"], rel=0.02)
    assert asleep_ns == pytest.approx(own["asleep_ns"], rel=0.02)
    # And the picture shows just these numbers
    events = json.loads(chrome.write(timeline))["traceEvents"]
    drawn = [one["dur"] for one in events if one["ph"] == "X" and one["tid"] == own["tid"] and one["cat"] == "running"]
    assert sum(drawn) * 1000 == pytest.approx(running_ns)
