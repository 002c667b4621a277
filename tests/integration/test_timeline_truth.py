"""The timeline against a program's own clocks."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import pytest

from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.kernel.tracepoints import select
from pprofpy.collectors.trace import EventRecorder, TraceOptions
from pprofpy.events.scheduling import calls_by_thread, to_trace
from pprofpy.formats import chrome
from pprofpy.model.timeline import State, build
from tests.conftest import PROGRAMS, Start, rounds_until_right, stolen_ns
from tests.recorders import last_events
from tests.sight import on_sighted_cpus

pytestmark = pytest.mark.ebpf


def test_running_and_blocked_are_what_the_programs_own_clocks_say(start: Start) -> None:
    names = ["sched:sched_switch", "sched:sched_waking", "sched:sched_wakeup_new", "!clock_gettime", "*"]

    def measure() -> list[str]:
        # Given a thread that sleeps and computes, and measures both
        process = start(*on_sighted_cpus(), sys.executable, str(PROGRAMS / "clocked.py"), stdin=subprocess.PIPE)
        assert process.stdin
        assert process.stdout
        stolen_before_ns = stolen_ns()
        with EventRecorder(TraceOptions(select(names), Scope(process.pid))) as recorder:
            process.stdin.write("\n")
            process.stdin.flush()
            own = json.loads(process.stdout.readline())
            batch = last_events(recorder)
            collection = recorder.collected()
        stolen = stolen_ns() - stolen_before_ns
        timeline = build(to_trace(recorder.log, [batch], 0, collection), calls_by_thread(recorder.log, [batch]))

        # Then running, and blocked or runnable within the sleeps, add up to the same
        spans = timeline.spans[own["tid"]]
        running_ns = sum(span.duration_ns for span in spans if span.state is State.RUNNING)
        sleeping = [span for span in spans if span.call == "clock_nanosleep"]
        late = [after for span, after in pairwise(spans) if span in sleeping]
        asleep_ns = sum(span.duration_ns for span in (*sleeping, *late))
        # And the picture shows just these numbers
        drawn = [
            one["dur"]
            for one in json.loads(chrome.write(timeline))["traceEvents"]
            if one["ph"] == "X" and one["tid"] == own["tid"] and one["cat"] == "running"
        ]
        assert sum(drawn) * 1000 == pytest.approx(running_ns)
        facts = {
            f"{collection.dropped} events were dropped": collection.dropped == 0,
            f"{timeline.holes} events are missing": timeline.holes == 0,
            f"{len(sleeping)} of 20 sleeps were seen": len(sleeping) == 20,
            f"woken by {[span.waker for span in sleeping]}": {span.waker for span in sleeping} == {"timer/irq"},
            f"ran {running_ns:,} ns, not {own['cpu_ns']:,} ns ({stolen:,} ns stolen)": own["cpu_ns"] * 0.98
            <= running_ns
            <= own["cpu_ns"] * 1.02 + stolen,
            f"slept {asleep_ns:,} ns, not {own['asleep_ns']:,} ns": asleep_ns
            == pytest.approx(own["asleep_ns"], rel=0.02),
        }
        return [what for what, holds in facts.items() if not holds]

    rounds_until_right(measure)
