"""What each report looks like, and its JSON: on recordings built by hand, at 80 columns."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
from rich.console import Console

from pprofpy.cli import confinement, doctor, target_options
from pprofpy.cli.main import run
from pprofpy.collectors.doctor import Check, Verdict
from pprofpy.events.event_profile import frames_of
from pprofpy.events.log import EventStats, EventSummary
from pprofpy.events.words import TracedEvent
from pprofpy.formats import eventlog, recording
from pprofpy.formats.folder import UNFINISHED, Entry
from pprofpy.formats.recording import Summary
from pprofpy.model.latency import Histogram
from pprofpy.reports import list_recordings, timeline, trace_lines, trace_summary
from pprofpy.target import Target, choice
from pprofpy.target.interpreter import Interpreter
from pprofpy.target.usage import Usage
from tests import recordings
from tests.events import LOG, batch, call, call_with_strings, switch, waking
from tests.looks import GOLDEN, Render, assert_looks, on_terminal, piped
from tests.recordings import HARMFUL, MB, MS, RECORDINGS, SECOND, TIME_NS, collection
from tests.stacks import stack
from tests.unit.test_timeline import EXAMPLE

READ, OPENAT = 0, 257
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


@pytest.mark.parametrize("kind", RECORDINGS)
def test_each_recording_fits_a_terminal_of_80_columns(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = printed(capsys, "show", f"{kind}.pb.gz")

    assert_looks(text, f"show.{kind}.terminal80.txt")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = printed(capsys, "show", f"{kind}.pb.gz")
    assert without_styles(plain) == without_styles(text)
    assert not re.search(COLOUR, plain)


LONG = "package.module." + "Class." * 30 + "method"


@pytest.fixture
def _long_names(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """All functions and threads have names that no line has room for."""
    monkeypatch.setattr(recordings, "PRICE", stack(f"{LONG}.main:50 > {LONG}.serve:20 > {LONG}.price:12"))
    monkeypatch.setattr(recordings, "LOCK", stack(f"{LONG}.main:50 > {LONG}.lock:7"))
    monkeypatch.setattr(recordings, "HARMFUL", f"{LONG}.thread")
    for kind in RECORDINGS:
        made = getattr(recordings, kind.replace("-", "_"))()
        (folder / f"{kind}.pb.gz").write_bytes(recording.write(made))


VIEWS = [("show",), ("top",), ("tree",), ("peek", "price"), ("top", "--lines"), ("traces",)]


@pytest.mark.parametrize("kind", RECORDINGS)
@pytest.mark.parametrize("words", VIEWS, ids=" ".join)
@pytest.mark.usefixtures("_long_names")
def test_no_table_wraps_on_a_terminal_and_no_name_is_cut_in_a_pipe(
    words: tuple[str, ...], kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pipe = printed(capsys, *words, f"{kind}.pb.gz")
    monkeypatch.setenv("FORCE_COLOR", "1")
    on_terminal = without_styles(printed(capsys, *words, f"{kind}.pb.gz"))

    assert "\x1b" not in in_pipe
    assert f"{LONG}.price" in in_pipe
    assert len(in_pipe.splitlines()) == len(on_terminal.splitlines())
    for line in on_terminal.splitlines():
        assert len(line) <= 80 or line.lstrip().startswith(SENTENCES), line


SENTENCES = ("Samples:", "Recorded:", "cpu 1 ran ")
"""Lines that are no rows of a table may wrap."""

STYLE, COLOUR = r"\x1b\[[\d;]*m", r"\x1b\[(?:\d+;)*[34]\d[\d;]*m"


def without_styles(text: str) -> str:
    return re.sub(STYLE, "", text)


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
    stack = frames_of(["shop.price (/app/shop.py:12)", "shop.main (/app/shop.py:50)"])
    printer = trace_lines.LinePrinter(console)
    printer.print(
        [
            TracedEvent(22_357_000, 7_800, 1, 42, 42, "python", "openat", '(AT_FDCWD, "/etc/hostname") = 3', ()),
            TracedEvent(22_434_000, -1, 1, 42, 42, "python", "sched:sched_switch", "prev_pid=42", ()),
            TracedEvent(90_000_000, 25 * MS, 0, 42, 43, "worker", "read", "(3</srv/x>) = -1 EIO", stack),
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


CHECKS = [
    Check("kernel", Verdict.OK, "Linux 6.1.58"),
    Check("py-spy", Verdict.WARNING, "py-spy 0.4.1 knows 3.3 to 3.13", "pip install -U py-spy", "cpu"),
    Check("process 42", Verdict.OK, f"{HARMFUL} is CPython 3.11.7"),
    Check("eBPF", Verdict.FAILED, "lacks CAP_BPF", "run it with sudo", "kernel stacks"),
]


TABLES: dict[str, Render] = {
    "trace_lines": trace_events,
    "trace_summary": trace_sums,
    "timeline": lambda console: timeline.render(timeline.build(EXAMPLE), console),
    "list_recordings": several_recordings,
    "doctor": lambda console: doctor.render(CHECKS, True, console),
    "doctor.none": lambda console: doctor.render(CHECKS[-1:], False, console),
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


# -- recordings of events ------------------------------------------------------------------------------------------

TRACE_VIEWS = {
    "trace.input.txt": ("trace", "--input"),
    "trace.input.json": ("trace", "--json", "--input"),
    "trace.summary.txt": ("trace", "-s", "--input"),
    "trace.summary.json": ("trace", "-s", "--json", "--input"),
    "trace.show.txt": ("show",),
    "trace.top.json": ("top", "--json"),
    "trace.tree.txt": ("tree",),
    "trace.traces.txt": ("traces",),
    "trace.timeline.txt": ("timeline",),
    "trace.collapsed.txt": ("export", "-f", "collapsed"),
}


@pytest.fixture
def traced(folder: Path) -> str:
    """A recording of events with stacks and, as another user's program may call them, harmful names."""
    price, main = f"shop.{HARMFUL} (/app/shop.py:12)", "shop.main (/app/shop.py:50)"
    name = HARMFUL.encode()[:15]
    events_of = batch(
        [switch(5_000, 10, 11, 1), waking(7_000, 11, 10, comm=name), switch(9_000, 11, 10, stack=2)],
        [
            call(2_000, READ, 500, 100, 3, 0x10, 100, fd_name=b"hosts", inode=77, stack=1),
            call(6_000, READ, 2_000, -11, 3, 0x10, 100, tid=11, comm=name, stack=2),
        ],
        [call_with_strings(call(1_000, OPENAT, 6_500, 3, -100, 0x20, stack=1), b"/etc/hosts")],
    )
    events_of = replace(events_of, stacks={1: (price, main), 2: (main,)})
    with (folder / "app.trace").open("wb") as stream:
        writer = eventlog.EventWriter(stream, replace(LOG, time_ns=TIME_NS))
        writer.add(events_of)
        writer.end(SECOND, collection(dropped=3, losses={"syscalls": 3}))
    return "app.trace"


@pytest.mark.parametrize("name", [name for name in TRACE_VIEWS if "json" not in name and "collapsed" not in name])
def test_each_view_of_recorded_events_fits_a_terminal(
    name: str, traced: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    text = printed(capsys, *TRACE_VIEWS[name], traced)

    assert_looks(text, f"{name.removesuffix('.txt')}.terminal80.txt")
    is_stream = name == "trace.input.txt"  # the arguments of calls are not cut: such a line wraps, as strace's do
    assert is_stream or max(map(len, without_styles(text).splitlines())) <= 80


@pytest.mark.parametrize(
    "words", [("list", "price"), ("peek", "price"), ("traces",), ("tree",), ("top",)], ids=" ".join
)
@pytest.mark.usefixtures("folder")
def test_how_it_was_recorded_is_told_if_one_asks(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert "Recorded:" not in printed(capsys, *words, "gil.pb.gz")

    told = printed(capsys, *words, "-v", "gil.pb.gz")
    assert "Recorded: shop (pid 42, CPython 3.11.7), pprofpy 0.1.0, eBPF" in told
    assert "Samples: about 997 expected, 990 taken" in told


@pytest.mark.parametrize("name", TRACE_VIEWS)
def test_each_view_of_recorded_events_looks(name: str, traced: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *TRACE_VIEWS[name], traced)

    assert HARMFUL not in text
    assert_looks(text, f"{name}")


# -- whom to record, and what works --------------------------------------------------------------------------------


def process(pid: int, user: str, *command: str) -> Target:
    python = Interpreter("CPython", "3.11.7", is_shared=False, is_stripped=False, path="/usr/bin/python3")
    return Target(pid, command[0], command, user, python, False, False, pid)


PROCESSES = [
    process(4242, "alice", "python", "shop.py", "--port", "80"),
    process(4243, "alice", "python", "shop.py", "--worker"),
    process(77, "1001", "/usr/bin/python3", HARMFUL),
    process(1234567, "www-data", "python", "-c", "x" * 100),
]


@pytest.fixture
def _processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four, of which one has started another, and one has ended meanwhile."""
    used = {4242: Usage(12 * SECOND, 84 * MB, 9), 4243: Usage(90 * MS, 61 * MB, 9), 77: Usage(0, MB, 9)}
    monkeypatch.setattr(choice, "usage", lambda pid: used.get(pid, Usage(-1, -1, -1)))
    monkeypatch.setattr(choice, "ancestors", lambda pid: [4242, 1] if pid == 4243 else [1])


@pytest.mark.usefixtures("_processes")
def test_the_processes_to_choose_from_look() -> None:
    error = choice.several(PROCESSES, "run here", with_children=False)

    assert HARMFUL not in str(error.hint)
    assert_looks(f"{error.message}\n{error.hint}\n", "choice.several.txt")


@pytest.mark.usefixtures("_processes")
def test_the_processes_to_choose_from_fit_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")

    hint = str(choice.several(PROCESSES, "run here", with_children=False).hint)

    assert max(len(line) + len("  hint: ") * (not number) for number, line in enumerate(hint.splitlines())) <= 80
    assert_looks(f"{hint}\n", "choice.several.terminal80.txt")


@pytest.mark.usefixtures("_processes")
def test_the_question_which_process_looks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(text: str, **_: object) -> str:
        click.echo(f"{text}: 2", err=True)
        return "2"

    monkeypatch.setattr("click.prompt", answer)

    assert target_options._pick(PROCESSES) is PROCESSES[1]

    asked = capsys.readouterr().err
    assert HARMFUL not in asked
    assert_looks(asked, "choice.question.txt")


# -- none is missing -------------------------------------------------------------------------------------------------

SHOWN_IN = {
    "by_label": "show.cpu",
    "calls": "tree",
    "costs": "show.cpu",
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
