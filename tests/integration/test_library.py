"""Python programs record with the library what the commands record."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import pprofpy
from pprofpy.errors import TargetError, UsageError
from pprofpy.library import Recorded
from tests.conftest import PROGRAMS, CommandLine, Start, beside_others, interpreter

DOCS = Path(__file__).parents[2] / "docs" / "library.md"


@pytest.fixture
def pid(start: Start) -> int:
    return start(interpreter("3.11"), str(PROGRAMS / "show.py")).pid


def test_the_import_alone_loads_nothing_else() -> None:
    code = "import sys, pprofpy; print(*(name for name in sys.modules if name.startswith(('pprofpy', 'numpy'))))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["pprofpy"]


def test_each_name_is_there_and_no_other() -> None:
    assert all(callable(getattr(pprofpy, name)) for name in pprofpy.__all__)
    with pytest.raises(AttributeError, match="no attribute 'record_all'"):
        pprofpy.record_all  # noqa: B018


@beside_others
def test_the_examples_of_the_documentation_work(
    pid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"pid": pid}

    for example in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL):
        exec(example, names)

    printed = capsys.readouterr().out
    assert re.match(r"\d+ samples\n", printed)
    assert ";" in printed


@beside_others
@pytest.mark.parametrize("command", ["cpu", "off-cpu", "gil", "sched-latency", "events"])
def test_a_recording_is_shown_as_a_command_s_own(command: str, pid: int, tmp_path: Path, cli: CommandLine) -> None:
    recorded = _record(command, pid)

    path = recorded.save(tmp_path / "made.pb.gz")
    shown = cli("show", "--json", str(path))

    assert recorded.kind == command
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["schema"] == f"pprofpy.{command}"
    assert pprofpy.load(path).profile.values.sum() == recorded.profile.values.sum()


def _record(command: str, pid: int) -> Recorded:
    commands: dict[str, Callable[[], Recorded]] = {
        "cpu": lambda: pprofpy.record_cpu(pid, 0.5),
        "off-cpu": lambda: pprofpy.record_off_cpu(pid, 0.5),
        "gil": lambda: pprofpy.record_gil(pid, 0.5),
        "sched-latency": lambda: pprofpy.record_sched_latency(pid, 0.5),
        "events": lambda: pprofpy.record_events(pid, ["context-switches"], 0.5),
    }
    return commands[command]()


def test_the_heap_is_recorded(pid: int) -> None:
    found = pprofpy.record_heap(pid, 1, sample_bytes=4096)

    assert found.kind == "heap"
    assert found.profile.total(found.profile.value_index("alloc_space")) > 0


def test_a_file_is_called_after_its_process(pid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path))

    path = pprofpy.record_cpu(pid, 0.5, engine="py-spy").save()

    assert path.parent == tmp_path
    assert re.fullmatch(rf"cpu-[\w-]+-{pid}-\d{{8}}-\d{{6}}\.pb\.gz", path.name)


def test_py_spy_records_without_ebpf_window_by_window(pid: int) -> None:
    """Each window is a run of its own, that begins where the last one ended; nothing of it stays."""
    files = len(list(Path("/proc/self/fd").iterdir()))

    # At the lowest rate: at a higher one, a busy machine has it fall behind, and it would be started anew, with a gap.
    recording = pprofpy.record_cpu(pid, 4, rate_hz=10, engine="py-spy", window_seconds=0.4)
    windows = [window.profile for window in recording.windows()]
    whole = recording.profile

    assert len([window for window in windows if len(window)]) >= 3
    assert sum(window.total(0) for window in windows) == whole.total(0) > 0
    for before, after in itertools.pairwise(window for window in windows if window.duration_ns):
        assert abs(after.time_ns - before.time_ns - before.duration_ns) < 0.05e9
    assert whole.collection.asked == pytest.approx(whole.duration_ns / 1e8, abs=len(windows))
    assert len(list(Path("/proc/self/fd").iterdir())) == files


@beside_others
def test_the_windows_together_are_the_recording(pid: int) -> None:
    whole = pprofpy.record_cpu(pid, 1.5, window_seconds=0.4)
    windows = list(whole.windows())

    assert len(windows) >= 3
    assert sum(window.profile.total(0) for window in windows) == whole.profile.total(0) > 0
    assert list(whole.windows()) == []


@beside_others
def test_columns_hold_what_the_samples_hold(pid: int) -> None:
    recorded = pprofpy.record_cpu(pid, 1)

    columns = recorded.columns()

    assert {len(column) for column in columns.values()} == {len(recorded.profile)}
    samples = list(recorded.profile.samples())
    assert [stack.split(";")[-1] for stack in columns["stack"]] == [one.stack[0].function.name for one in samples]
    assert columns["cpu_nanoseconds"].tolist() == [one.values[-1] for one in samples]


@beside_others
def test_it_goes_on_while_the_program_does_other_things_until_it_is_stopped(pid: int) -> None:
    recording = pprofpy.record_off_cpu(pid, None, window_seconds=0.1)
    seen = [window.kind for window, _ in zip(recording.windows(), range(3), strict=False)]
    recording.stop()

    assert seen == ["off-cpu"] * 3
    assert recording.profile.total(0) > 0


@beside_others
def test_an_event_stops_several(pid: int) -> None:
    stop = threading.Event()
    recordings = [pprofpy.record_off_cpu(pid, None, stop=stop), pprofpy.record_gil(pid, None, stop=stop)]
    stop.set()

    assert [recording.kind for recording in recordings] == ["off-cpu", "gil"]


@beside_others
def test_a_recording_ends_with_its_block(pid: int) -> None:
    with pprofpy.record_cpu(pid, None) as recording:
        pass

    assert recording.kind == "cpu"  # which would wait for ever


def test_a_target_that_dies_too_early_is_told_by_whoever_asks(start: Start) -> None:
    program = start(interpreter("3.11"), str(PROGRAMS / "show.py"))
    recording = pprofpy.record_heap(program.pid, None, window_seconds=1000)
    program.kill()

    with pytest.raises(TargetError):
        list(recording.windows())
    with pytest.raises(TargetError):
        recording.save()


@beside_others
def test_each_event_is_in_a_window_and_in_the_file(pid: int, tmp_path: Path, cli: CommandLine) -> None:
    path = tmp_path / "app.trace"

    recording = pprofpy.record_trace(pid, 1, stacks=True, path=str(path), window_seconds=0.3)
    events = [row for window in recording.windows() for row in window.tables["events"]]
    printed = cli("trace", "--input", str(path), "--json")

    lines = [json.loads(line) for line in printed.stdout.splitlines()]
    assert [(one["at_ns"], one["tid"], one["event"], one["text"]) for one in events] == [
        (one["at_ns"], one["tid"], one["event"], one["text"]) for one in lines
    ]
    assert recording.profile.total(0) == len(events) > 0
    assert recording.tables == {}
    assert any(one["stack"] for one in events)


def test_what_makes_no_sense_is_refused() -> None:
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="no length of time"):
            pprofpy.record_cpu(os.getpid(), seconds)


def test_a_process_that_is_not_there_is_told() -> None:
    with pytest.raises(TargetError):
        pprofpy.record_cpu(2**22 + 1, 1)


@beside_others
def test_subprocesses_are_those_of_a_process() -> None:
    with pytest.raises(UsageError, match="those of a process"):
        pprofpy.record_off_cpu(None, 1, subprocesses=True)
