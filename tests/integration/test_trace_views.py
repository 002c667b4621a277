"""A recording of events with stacks as flame graph and timeline: what these show is what `trace` prints of it."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import pprofpy
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder
from pprofpy.events.log import Batch
from tests.conftest import PROGRAMS, CommandLine, Start, interpreter, wait_until

pytestmark = pytest.mark.ebpf(needs="probes")


@pytest.fixture
def recorded(start: Start, cli: CommandLine, tmp_path: Path) -> Path:
    """Half a second of threads that wait for each other, with stacks."""
    program = start(interpreter("3.11"), str(PROGRAMS / "show.py"))
    path = tmp_path / "app.trace"
    done = cli(
        "trace", "--pid", str(program.pid), "-e", "sched:sched_switch,sched:sched_waking,*", "--stacks", "-d", "500ms",
        "-o", str(path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


def printed(cli: CommandLine, path: Path) -> list[dict[str, Any]]:
    done = cli("trace", "--input", str(path), "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def function_of(frame: str) -> str:
    return frame.rpartition(" (")[0] or frame


def test_the_flame_graph_has_each_event_on_its_stack(recorded: Path, cli: CommandLine, tmp_path: Path) -> None:
    lines = printed(cli, recorded)
    stacks = Counter((one["event"], *map(function_of, one.get("stack", ()))) for one in lines)

    profile = pprofpy.load(recorded).profile
    drawn = cli("flamegraph", str(recorded), "-o", str(tmp_path / "x.svg"), "--sample-index", "events")

    found: Counter[tuple[str, ...]] = Counter()
    for sample in profile.samples():
        found[tuple(frame.function.name for frame in sample.stack)] += sample.values[0]
    assert found == stacks
    assert any(len(stack) > 2 for stack in stacks)
    assert profile.total(1) <= sum(one["duration_ns"] or 0 for one in lines)
    assert drawn.returncode == 0, drawn.stderr
    picture = (tmp_path / "x.svg").read_text()
    assert all(function in picture for function in ("sched:sched_switch", "compute", "allocate"))


def test_the_timeline_says_where_each_thread_left_its_cpu(recorded: Path, cli: CommandLine, tmp_path: Path) -> None:
    lines = [one for one in printed(cli, recorded) if "stack" in one]
    left = {(one["tid"], one["at_ns"]): one["stack"] for one in lines if one["event"] == "sched:sched_switch"}

    done = cli("timeline", str(recorded), "-o", str(tmp_path / "x.json"))

    assert done.returncode == 0, done.stderr
    slices = [one for one in json.loads((tmp_path / "x.json").read_text())["traceEvents"] if one["ph"] == "X"]
    shown = {(one["tid"], round(one["ts"] * 1000)): one["args"]["stack"] for one in slices if "stack" in one["args"]}
    both = shown.keys() & left.keys()
    assert len(both) > 10
    assert {key: shown[key] for key in both} == {key: left[key] for key in both}
    assert {tuple(stack) for stack in shown.values()} <= {tuple(one["stack"]) for one in lines}


def test_sched_latency_writes_the_same_format_as_it_goes(start: Start, cli: CommandLine) -> None:
    """Before its end, and after it was killed: both commands' views read it."""
    program = start(interpreter("3.11"), str(PROGRAMS / "show.py"))
    recording = cli.start("sched-latency", "--trace", "--pid", str(program.pid), "-d", "10m")

    def events() -> Path | None:
        return next((path for path in cli.recordings if path.suffix == ".trace" and path.stat().st_size > 20_000), None)

    wait_until(lambda: events() is not None, "events are in the file")
    path = events()
    assert path
    listed = json.loads(cli("list-recordings", "--json").stdout)["recordings"]
    recording.send_signal(signal.SIGKILL)
    recording.communicate()
    lines = printed(cli, path)
    timeline = json.loads(cli("timeline", str(path), "--json").stdout)

    assert [one["state"] for one in listed if one["path"] == str(path)] == ["running"]
    assert {"sched:sched_switch", "sched:sched_waking"} <= {one["event"] for one in lines}
    assert {"compute", "allocate"} <= {row["name"] for row in timeline["rows"]}
    assert {row["pid"] for row in timeline["rows"]} == {program.pid}
    assert cli("top", str(path)).returncode == 0


def test_the_first_events_that_are_told_have_the_names_of_their_threads(start: Start) -> None:
    program = start(interpreter("3.11"), str(PROGRAMS / "show.py"))
    with SchedRecorder(SchedOptions(Scope(program.pid), trace=True)) as recorder:
        told: list[Batch] = []

        def are_told() -> bool:
            told.append(recorder.new_events())
            return bool(told[-1].threads)

        wait_until(are_told, "events of threads are told")

    names = {name for _, name in told[-1].threads.values()}
    assert names
    assert names <= {"MainThread", "compute", "allocate"}, names


def test_a_whole_recording_of_sched_latency_sums_up_to_its_table(start: Start, cli: CommandLine) -> None:
    program = start(interpreter("3.11"), str(PROGRAMS / "show.py"))

    done = cli("sched-latency", "--trace", "--pid", str(program.pid), "-d", "1", "--json")
    assert done.returncode == 0, done.stderr
    (path,) = (one for one in cli.recordings if one.suffix == ".trace")
    lines = printed(cli, path)

    waits = sum(1 for one in lines if one["event"] == "sched:sched_switch" and not one["text"].endswith("wait_ns=0"))
    counted = json.loads(done.stdout)["total"]["count"]
    assert waits == pytest.approx(counted, abs=5)
    assert counted > 10
    assert f"events: {path} ({len(lines)} in order)\n" in done.stderr
