"""What each report looks like, and its JSON: on recordings built by hand, at 80 columns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pprofpy.cli import confinement
from pprofpy.cli.main import run
from pprofpy.events.log import EventStats, EventSummary
from pprofpy.events.words import EventLine
from pprofpy.formats import recording
from pprofpy.formats.folder import UNFINISHED, Entry
from pprofpy.formats.recording import Summary
from pprofpy.model.latency import Histogram
from pprofpy.reports import list_recordings, timeline, trace_lines, trace_summary
from tests.looks import GOLDEN, Render, assert_looks, on_terminal, piped
from tests.recordings import HARMFUL, MB, MS, RECORDINGS, SECOND, TIME_NS, collection
from tests.unit.test_timeline import EXAMPLE

REPORTS = Path(trace_lines.__file__).parent


@pytest.fixture(autouse=True)
def _greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With one recording of each kind; tables are 80 columns wide."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(confinement, "_is_own_process", False)
    for kind, made in RECORDINGS.items():
        (tmp_path / f"{kind}.pb.gz").write_bytes(recording.write(made))
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(words) == 0
    return capsys.readouterr().out


# -- what commands print of their recordings -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RECORDINGS)
def test_each_recording_looks(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "show", f"{kind}.pb.gz")

    assert HARMFUL not in text
    assert_looks(text, f"show.{kind}.txt")


@pytest.mark.parametrize("kind", RECORDINGS)
def test_each_recording_has_its_json(kind: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_looks(printed(capsys, "show", "--json", f"{kind}.pb.gz"), f"show.{kind}.json")


# -- tables that stand alone -----------------------------------------------------------------------------------------


def trace_sums(console: Console) -> None:
    def stats(tid: int, thread: str, event: str, *times_us: int, errors: int = 0, is_call: bool = True) -> EventStats:
        times_ns = [one * 1000 for one in times_us]
        return EventStats(
            42, tid, thread, event, len(times_ns), SECOND, is_call, errors,
            sum(times_ns), min(times_ns), max(times_ns), Histogram.of(times_ns) if is_call else Histogram(),
        )  # fmt: skip

    rows = (
        stats(42, "MainThread", "read", 3, 4, 4, 5, 900, errors=1),
        stats(42, "MainThread", "clock_nanosleep", 20_000, 20_100),
        stats(42, "MainThread", "sched:sched_switch", 1, 1, 1, is_call=False),
        stats(43, HARMFUL, "futex", *range(10, 40), errors=7),
    )
    summary = EventSummary(rows, 2 * SECOND, collection(dropped=5, losses={"syscalls": 5}))
    trace_summary.render(trace_summary.build(summary), console)


def trace_events(console: Console) -> None:
    stack = ("shop.price (/app/shop.py:12)", "shop.main (/app/shop.py:50)")
    printer = trace_lines.LinePrinter(console, SECOND)
    printer.print(
        [
            EventLine(SECOND + 22_357_000, 7_800, 1, 42, 42, "python", "openat", '(AT_FDCWD, "/etc/hostname") = 3', ()),
            EventLine(SECOND + 22_434_000, -1, 1, 42, 42, "python", "sched:sched_switch", "prev_pid=42", ()),
            EventLine(SECOND + 90_000_000, 25 * MS, 0, 42, 43, "worker", "read", "(3</srv/x>) = -1 EIO", stack),
        ]
    )


def several_recordings(console: Console) -> None:
    def entry(name: str, size: int, state: str = "", **about: int | str) -> Entry:
        return Entry(Path(f"/var/lib/pprofpy/{name}"), size, TIME_NS, Summary(**about), state)  # type: ignore[arg-type]

    entries = [
        entry("heap-shop-42.pb.gz", 3 * MB, kind="heap", target="shop (pid 42)", time_ns=TIME_NS, duration_ns=SECOND),
        entry("cpu-x-7.spool", 20_000, UNFINISHED, kind="cpu", target=f"{HARMFUL} (pid 7)", time_ns=TIME_NS - SECOND),
        entry("go.pb.gz", 700, time_ns=TIME_NS - 86_400 * SECOND),
    ]
    list_recordings.render(entries, "/var/lib/pprofpy", console)


TABLES: dict[str, Render] = {
    "trace_lines": trace_events,
    "trace_summary": trace_sums,
    "timeline": lambda console: timeline.render(timeline.build(EXAMPLE), console),
    "list_recordings": several_recordings,
    "list_recordings.none": lambda console: list_recordings.render([], "/var/lib/pprofpy", console),
}


@pytest.mark.parametrize("name", TABLES)
def test_each_table_looks(name: str) -> None:
    text = piped(TABLES[name])

    assert HARMFUL not in text
    assert_looks(text, f"{name}.txt")


@pytest.mark.parametrize("name", TABLES)
def test_a_terminal_of_80_columns_is_wide_enough(name: str) -> None:
    assert_looks(on_terminal(TABLES[name]), f"{name}.terminal80.txt")


# -- none is missing -------------------------------------------------------------------------------------------------

SHOWN_IN = {
    "calls": "tree",
    "gil": "show.gil",
    "growth": "show.heap",
    "heap": "show.heap",
    "histogram": "show.sched-latency",
    "off_cpu": "show.off-cpu",
    "sched_latency": "show.sched-latency",
    "threads": "show.cpu",
}
"""Reports whose golden file has another name: that of the command which prints them."""


def test_each_report_has_a_golden_file() -> None:
    reports = {path.stem for path in REPORTS.glob("*.py") if "\ndef render" in path.read_text()}
    drawn = {"flamegraph"}  # a browser looks at it: tests/browser

    assert {"top", "list", "traces", "timeline", *SHOWN_IN, *drawn} <= reports
    for report in reports - drawn:
        assert (GOLDEN / f"{SHOWN_IN.get(report, report)}.txt").exists(), report
