"""`pprofpy trace` on real programs and the real kernel: what they are known to do, and what others say of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import pytest

from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.kernel.tracefs import tracing_folder
from pprofpy.collectors.kernel.tracepoints import select
from pprofpy.collectors.trace import EventRecorder, TraceOptions
from pprofpy.events.log import Batch, EventSummary
from pprofpy.events.words import Narrator, TracedEvent
from pprofpy.reports.losses import lines
from pprofpy.text import printable
from tests.conftest import PROGRAMS, CommandLine, Start, beside_others, interpreter, rounds_until_right, wait_until
from tests.integration.sched_reference import needs_perf, perf
from tests.recorders import last_events

pytestmark = pytest.mark.ebpf


def go_on(process: subprocess.Popen[str]) -> None:
    """Send the line that a program waits for."""
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


class Program:
    """A program that waits for a line before it works, and again before it ends."""

    def __init__(self, start: Start, name: str, *arguments: str, **options: object) -> None:
        words = (sys.executable, str(PROGRAMS / name), *arguments)
        self.process = start(*words, stdin=subprocess.PIPE, **options)
        self.pid = self.process.pid

    def go_on(self) -> None:
        go_on(self.process)

    def work(self) -> None:
        """Let it work until it is done, and the kernel with its threads: Python joins them before they have ended."""
        self.go_on()
        assert self.process.stdout
        assert self.process.stdout.readline() == "done\n"
        tasks = Path(f"/proc/{self.pid}/task")
        wait_until(lambda: len(list(tasks.iterdir())) == 1, "its threads have ended")

    def end(self) -> None:
        self.go_on()
        self.process.wait()


@pytest.fixture
def program(start: Start) -> Program:
    return Program(start, "syscalls.py")


def record(
    program: Program, *names: str, slower_than_ns: int = 0, lines: bool = True
) -> tuple[list[TracedEvent], EventSummary]:
    """Everything that the program does, in words, and the kernel's own sums of it."""
    options = TraceOptions(select(names), Scope(program.pid), slower_than_ns=slower_than_ns, lines=lines, summary=True)
    with EventRecorder(options) as recorder:
        program.work()
        batches: list[Batch] = [last_events(recorder)]
        summary = recorder.summary()
        assert summary.collection.dropped == 0
        narrator = Narrator(recorder.log)
        return [line for batch in batches for line in narrator.lines(batch)], summary


# -- truth -----------------------------------------------------------------------------------------------------------


def test_every_call_is_seen_with_its_arguments_result_and_duration(program: Program) -> None:
    lines, _ = record(program)

    # 1,000 calls are 1,000 lines
    assert sum(line.event == "getppid" for line in lines) == 1000
    assert {line.text for line in lines if line.event == "getppid"} == {f"() = {os.getpid()}"}
    # A sleep lasts as long as it was asked to (up to a time that Python works out before the call, and may be late for)
    sleeps = [line.duration_ns for line in lines if line.event == "clock_nanosleep"]
    assert len(sleeps) == 5
    assert median(sleeps) >= 20_000_000
    # A hostile name is shown whole, and harmless
    failed = [line.text for line in lines if "ENOENT" in line.text and "pprofpy no" in line.text]
    assert (
        failed
        == ['(AT_FDCWD, "/tmp/pprofpy no\\nsuch\\x1b[31m file\\u202e\\"\\\\", O_RDONLY|O_CLOEXEC) = -1 ENOENT'] * 3
    )
    assert not any(char in line.text for line in lines for char in "\n\x1b\u202e")
    # One that is too long is cut, and has a mark
    long = ("/tmp/pprofpy" + "/long" * 100)[:255]
    assert [line.text for line in lines if "/long/" in line.text] == [
        f'(AT_FDCWD, "{long}"…, O_RDONLY|O_CLOEXEC) = -1 ENOENT'
    ]
    # A descriptor stands for its file
    reads = [line.text for line in lines if line.event == "read" and "count=16)" in line.text]
    assert len(reads) == 10
    assert all(re.match(r"\(\d+<(/.*/)?syscalls\.py>, buf=0x[0-9a-f]+, count=16\) = 16", text) for text in reads)
    # Threads are told apart
    assert len({line.tid for line in lines if line.event in ("getppid", "clock_nanosleep")}) == 2


def test_the_kernels_sums_are_those_of_the_lines(program: Program) -> None:
    lines, summary = record(program)

    counted = Counter(
        (line.tid, line.event) for line in lines if "(began before" not in line.text and "(in the new" not in line.text
    )
    assert {(one.tid, one.event): one.count for one in summary.stats} == counted
    sums = {one.event: one for one in summary.stats if one.event in ("getppid", "clock_nanosleep")}
    for name, one in sums.items():
        durations = [line.duration_ns for line in lines if line.event == name]
        assert (one.total_ns, one.min_ns, one.max_ns) == (sum(durations), min(durations), max(durations))
        assert one.histogram.total == len(durations)
    failed = Counter(line.event for line in lines if ") = -1 E" in line.text)
    assert {name: sum(one.errors for one in summary.stats if one.event == name) for name in failed} == failed


def test_duration_filters_in_the_kernel(program: Program) -> None:
    lines, summary = record(program, slower_than_ns=15_000_000)

    assert sum(line.event == "clock_nanosleep" for line in lines) == 5
    assert all(line.duration_ns >= 15_000_000 for line in lines if line.event != "exit")
    assert "getppid" not in {one.event for one in summary.stats}


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_counts_are_those_of_strace(start: Start, tmp_path: Path) -> None:
    # Given the same program, once under strace and once under our eyes
    output = tmp_path / "strace"
    words = ("strace", "-f", "-c", "-U", "calls,name", "-o", str(output), sys.executable, str(PROGRAMS / "syscalls.py"))
    traced = start(*words, stdin=subprocess.PIPE)
    assert traced.stdin
    traced.stdin.write("\n\n")
    traced.stdin.flush()
    traced.wait()
    rows = (line.split() for line in output.read_text().splitlines())
    theirs = {row[1]: int(row[0]) for row in rows if len(row) == 2 and row[0].isdigit()}

    lines, _ = record(Program(start, "syscalls.py"))

    # Then what the work consists of was counted alike
    ours = Counter(line.event for line in lines)
    for name in ("getppid", "clock_nanosleep"):
        assert ours[name] == theirs[name]


def test_tracepoints_read_as_the_kernel_prints_them(start: Start) -> None:
    names = ["sched:sched_switch", "sched:sched_process_*", "signal", "kmem:mm_page_alloc", "kmem:kmem_cache_alloc",
             "syscalls:sys_enter_openat", "raw_syscalls", "exceptions:page_fault_user", "task"]  # fmt: skip
    selection = select(names, with_syscalls=False)

    def measure() -> list[str]:
        # Given the kernel's own tracing of the same process
        program = Program(start, "syscalls.py")
        with kernel_tracing([one.name for one in selection.tracepoints], program.pid) as kernel_text:
            options = TraceOptions(selection, Scope(program.pid), tid=program.pid)
            with EventRecorder(options) as recorder:
                program.work()
                batch = last_events(recorder)
                narrator = Narrator(recorder.log)
                dropped = recorder.collected().dropped
                ours = Counter(
                    (line.event.split(":")[1], _without_addresses(line.text))
                    for line in narrator.lines(batch)
                    if line.tid == program.pid
                )
            theirs = Counter((event, _without_addresses(text)) for event, text in kernel_text())

        # Then both say the same, word by word
        assert sum(ours.values()) > 50
        assert dropped or {"sys_enter", "sys_exit", "kmem_cache_alloc"} <= {event for event, _ in ours}
        other_words = [f"{event}: {text}" for event, text in ours - theirs]
        return other_words + ([f"{dropped} events were dropped"] if dropped else [])

    rounds_until_right(measure)


@contextmanager
def kernel_tracing(names: list[str], pid: int) -> Iterator[Callable[[], list[tuple[str, str]]]]:
    """The kernel writes these events of a thread into a buffer of its own; yields a function that reads it."""
    instance = tracing_folder() / "instances" / f"pprofpy-{uuid.uuid4()}"
    instance.mkdir()
    try:
        (instance / "buffer_size_kb").write_text("16384")
        for name in names:
            folder = instance / "events" / name.replace(":", "/")
            (folder / "filter").write_text(f"common_pid == {pid}")
            (folder / "enable").write_text("1")

        def read() -> list[tuple[str, str]]:
            text = (instance / "trace").read_text(errors="backslashreplace")
            _, *events = re.split(r"^.*-\d+\s+\[\d+\]\s+\S+\s+[\d.]+: ", text, flags=re.MULTILINE)
            found = (re.match(r"(\w+)(?:: |\()(.*)", one.rstrip("\n"), re.DOTALL) for one in events)
            return [(match[1], printable(match[2])) for match in found if match]  # names may hold line breaks

        yield read
    finally:
        instance.rmdir()


def _without_addresses(text: str) -> str:
    """The kernel scrambles addresses and appends offsets; a struct page's address only it can compute."""
    text = re.sub(r"page=\S+", "page=", re.sub(r"\+0x[0-9a-f]+(/0x[0-9a-f]+)?", "", text))
    return " ".join(re.sub(r"\b(0x)?[0-9a-f]{8,16}\b|0x[0-9a-f]+", "", text).split())


# -- the command line ------------------------------------------------------------------------------------------------


def test_lines_come_live_and_end_with_the_target(cli: CommandLine, program: Program) -> None:
    running = cli.start("trace", "--pid", str(program.pid), "-e", "getppid,openat,clock_nanosleep")
    assert running.stdout
    wait_until(lambda: _has_started(running, program), "it records")

    program.work()
    first = [running.stdout.readline() for _ in range(10)]  # before the program has ended
    program.end()
    lines = first + running.stdout.readlines()
    _, errors = running.communicate()

    assert running.returncode == 0, errors
    assert lines[0].split() == ["TIME", "TOOK", "CPU", "THREAD", "EVENT"]
    assert sum("getppid() = " in line for line in lines) == 1000, errors
    assert all(re.match(r" *\d+\.\d{6} +[\d.]*[a-z]* +\d+ \S", line) for line in lines[1:])


def _has_started(running: subprocess.Popen[str], program: Program) -> bool:
    """Are its probes in place? The kernel lists what a process has attached."""
    assert running.poll() is None
    links = [_read(info) for info in Path(f"/proc/{running.pid}/fdinfo").glob("*")]
    return sum("link_type" in link for link in links) >= 4  # new threads, ended threads, calls and returns


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""


@pytest.mark.parametrize("everybody", [False, True])
def test_only_what_goes_on_at_the_beginning_began_before(everybody: bool, start: Start) -> None:
    code = """
import os, threading
def ask():
    while True: os.getppid()
for _ in range(4): threading.Thread(target=ask, daemon=True).start()
print("ready", flush=True)
ask()
"""
    process = start(sys.executable, "-c", code)
    seen: list[TracedEvent] = []

    def has_seen_enough() -> bool:
        seen.extend(line for batch in recorder.read() for line in narrator.lines(batch))
        return len(seen) > 1000

    scope = Scope() if everybody else Scope(process.pid)
    with EventRecorder(TraceOptions(select(["getppid"]), scope)) as recorder:
        narrator = Narrator(recorder.log)
        wait_until(has_seen_enough, "it makes calls")

    of_it = [event.text for event in seen if event.pid == process.pid]
    assert len(of_it) > 900
    assert sum("began before" in text for text in of_it) <= 5  # of each thread the one that it was in


def test_an_idle_process_is_told_from_a_tool_that_does_nothing(cli: CommandLine, start: Start) -> None:
    program = start(sys.executable, str(PROGRAMS / "sleeper.py"))

    done = cli("trace", "--pid", str(program.pid), "-d", "0.3")

    assert (done.returncode, done.stdout) == (0, "")
    began, ended = done.stderr.splitlines()
    assert re.match(rf"recording .*\(pid {program.pid}, ", began)
    assert ended == "no event: nothing that is traced has happened"


def test_a_command_is_traced_from_its_first_instruction_on(cli: CommandLine) -> None:
    # Given a program that lives for a moment only
    words = (sys.executable, "-c", "import os, time; os.getppid(); time.sleep(0.5)")

    finished = cli("trace", "-e", "execve,getppid", "--", *words)

    assert finished.returncode == 0, finished.stderr
    assert f'execve("{sys.executable}"' in finished.stdout
    assert finished.stdout.count("getppid()") == 1


def test_a_summary_by_thread(cli: CommandLine) -> None:
    finished = cli("trace", "-s", "-e", "getppid,clock_nanosleep", "--json", "--", sys.executable, "-c",
                   "import os, time\nfor _ in range(77): os.getppid()\ntime.sleep(0.3)")  # fmt: skip

    assert finished.returncode == 0, finished.stderr
    (thread,) = json.loads(finished.stdout)["threads"]
    rows = {row["event"]: row for row in thread["rows"]}
    assert rows["getppid"]["count"] == 77
    assert rows["clock_nanosleep"]["total_ns"] >= 300_000_000


def test_a_file_can_be_looked_at_later(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "app.trace"
    code = "import os, time\nfor _ in range(50): os.getppid()\ntime.sleep(0.3)"

    saved = cli(
        "trace", "-o", str(path), "-e", "*,sched:sched_switch,sched:sched_waking", "--", sys.executable, "-c", code
    )

    assert (saved.returncode, saved.stdout) == (0, "")
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob("app.trace*")) == [path]
    shown = cli("trace", "--input", str(path), "-e", "getppid")
    assert shown.stdout.count("getppid() = ") == 50
    slow = cli("trace", "--input", str(path), "-e", "clock_nanosleep", "--duration", "250")
    assert slow.stdout.count("clock_nanosleep(") == 1
    assert len(cli("trace", "--input", str(path), "--max-events", "5").stdout.splitlines()) == 6
    summary = json.loads(cli("trace", "--input", str(path), "-s", "--json").stdout)
    assert sum(row["count"] for one in summary["threads"] for row in one["rows"] if row["event"] == "getppid") == 50
    table = json.loads(cli("timeline", str(path), "--json").stdout)
    assert dict(table["rows"][0]["reasons"])["clock_nanosleep"] >= 290_000_000


@beside_others
def test_max_events_ends_it(cli: CommandLine, start: Start) -> None:
    busy = start(sys.executable, "-c", "import os\nprint('ready', flush=True)\nwhile True: os.getppid()")

    finished = cli("trace", "-p", str(busy.pid), "--max-events", "25")

    assert finished.returncode == 0, finished.stderr
    assert len(finished.stdout.splitlines()) == 26
    assert busy.poll() is None


@beside_others
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["-e", "sched:sched_swich"], 2, "did you mean sched:sched_switch"),
        (["-e", "opennat"], 2, "openat"),
        (["--no-syscalls"], 2, "name events"),
        (["--input", "/nonexistent"], 5, "there is no file"),
        (["--duration", "soon"], 2, "is not a duration"),
        (["-p", "4194304"], 3, "there is no process"),
        (["-o", "/nonexistent/x.trace"], 1, "does not exist"),
    ],
)
def test_mistakes_are_explained(cli: CommandLine, words: list[str], status: int, message: str) -> None:
    finished = cli("trace", "-d", "1", *words)

    assert finished.returncode == status
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


@beside_others
def test_without_privileges_it_says_what_to_grant(cli: CommandLine) -> None:
    finished = cli("trace", "-d", "1", prefix=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))

    assert finished.returncode == 4
    assert "CAP_BPF" in finished.stderr
    assert "sudo" in finished.stderr


# -- what else may happen ----------------------------------------------------------------------------------------------


def test_ten_thousand_short_threads(start: Start) -> None:
    program = Program(start, "threads.py", "10000")
    options = TraceOptions(
        select(["getppid", "sched:sched_process_exit"]), Scope(program.pid), lines=False, summary=True
    )
    with EventRecorder(options) as recorder:
        program.end()
        last_events(recorder)
        summary = recorder.summary()

    assert summary.collection.dropped == 0
    assert sum(one.count for one in summary.stats if one.event == "getppid") == 10_000
    assert sum(one.count for one in summary.stats if one.event == "sched:sched_process_exit") == 10_001


def test_children_are_followed_only_if_asked(start: Start) -> None:
    wait = "import os, sys\nprint('ready', flush=True)\nsys.stdin.readline()\n"
    child = "    if os.fork() == 0:\n        os.getppid()\n        os._exit(0)\n"
    code = f"{wait}for _ in range(3):\n{child}    os.wait()\n"
    for children, expected in ((False, 0), (True, 3)):
        process = start(sys.executable, "-c", code, stdin=subprocess.PIPE)
        options = TraceOptions(select(["getppid"]), Scope(process.pid, children=children))
        with EventRecorder(options) as recorder:
            go_on(process)
            process.wait()
            assert len(last_events(recorder)) == expected


def test_an_exec_is_survived(start: Start) -> None:
    code = "import os, sys\nprint('ready', flush=True)\nsys.stdin.readline()\nos.execv('/bin/true', ['true'])"
    process = start(sys.executable, "-c", code, stdin=subprocess.PIPE)
    with EventRecorder(TraceOptions(select(["execve", "exit_group"]), Scope(process.pid))) as recorder:
        go_on(process)
        process.wait()
        lines = Narrator(recorder.log).lines(last_events(recorder))

    assert re.fullmatch(r'\("/bin/true", argv=\w+, envp=\w+\) = 0', lines[0].text)
    assert (lines[-1].event, lines[-1].text) == ("exit_group", "(status=0) = ?")


@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not installed")
def test_a_target_in_another_pid_namespace_is_known_by_its_outer_pid(start: Start) -> None:
    words = ("unshare", "--pid", "--fork", "--kill-child", sys.executable, str(PROGRAMS / "syscalls.py"))
    outer = start(*words, stdin=subprocess.PIPE)
    inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
    with EventRecorder(TraceOptions(select(["getppid"]), Scope(inner))) as recorder:
        go_on(outer)
        assert outer.stdout
        assert outer.stdout.readline() == "done\n"
        lines = Narrator(recorder.log).lines(last_events(recorder))

    assert len(lines) == 1000
    assert {line.pid for line in lines} == {inner}


def test_two_at_once_see_the_same(program: Program) -> None:
    options = TraceOptions(select(["getppid", "sched:sched_process_exit"]), Scope(program.pid))
    with EventRecorder(options) as one, EventRecorder(options) as other:
        program.work()
        first, second = (Narrator(each.log).lines(last_events(each)) for each in (one, other))

    assert len(first) == len(second) >= 1000
    assert [(line.tid, line.event, line.text) for line in first] == [
        (line.tid, line.event, line.text) for line in second
    ]


def test_a_kill_leaves_nothing_in_the_kernel(cli: CommandLine, program: Program) -> None:
    running = cli.start("trace", "-p", str(program.pid), "-e", "*,sched:sched_switch")
    wait_until(lambda: _has_started(running, program), "it records")
    held = _bpf_ids(running.pid)
    assert held

    running.send_signal(signal.SIGKILL)
    running.communicate()

    wait_until(lambda: not _exist(held), "the kernel has dropped its programs")
    program.work()  # the target is well


def _bpf_ids(pid: int) -> set[int]:
    """The kernel's numbers for the programs of a process."""
    text = "".join(_read(info) for info in Path(f"/proc/{pid}/fdinfo").glob("*"))
    return {int(number) for number in re.findall(r"^prog_id:\s*(\d+)", text, re.MULTILINE)}


def _exist(ids: set[int]) -> bool:
    """Does the kernel still have any of these programs? Source: bpf(BPF_PROG_GET_FD_BY_ID)."""
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    for number in ids:
        attributes = struct.pack("<III", number, 0, 0).ljust(64, b"\0")
        descriptor = libc.syscall(321, 13, attributes, len(attributes))
        if descriptor >= 0:
            os.close(descriptor)
            return True
    return False


@needs_perf
def test_perf_sees_all_its_events_meanwhile(program: Program, tmp_path: Path) -> None:
    # Given perf, recording the same events of the same process as we do
    data = tmp_path / "perf.data"
    names = ("raw_syscalls:sys_enter", "sched:sched_switch", "sched:sched_process_exit")
    events = [f"-e{name}" for name in names]
    with (
        perf("record", "-q", "-m", "16M", "-o", str(data), "-p", str(program.pid), *events),
        EventRecorder(TraceOptions(select([*names, "*"]), Scope(program.pid))) as recorder,
    ):
        program.work()
        batch = last_events(recorder)
        missed = recorder.collected().dropped
        lines = [line for line in Narrator(recorder.log).lines(batch) if line.pid == program.pid]
        # A thread's last switches are ours alone: perf has let go of a thread that ends
        ends_ns = {line.tid: line.at_ns for line in lines if line.event == "sched:sched_process_exit"}
        is_last = [
            line.event == "sched:sched_switch" and line.at_ns > ends_ns.get(line.tid, line.at_ns) for line in lines
        ]
        ours = Counter(line.event for line, last in zip(lines, is_last, strict=True) if not last)
    script = subprocess.run(
        ["perf", "script", "-i", str(data), "-F", "event"], capture_output=True, text=True, check=True
    ).stdout
    theirs = Counter(line.strip().rstrip(":") for line in script.splitlines())

    # Then it has all that we have; it was there before us and stays longer
    assert missed == 0
    assert theirs["raw_syscalls:sys_enter"] >= ours["raw_syscalls:sys_enter"] > 1000
    assert theirs["sched:sched_switch"] >= ours["sched:sched_switch"] > 5
    assert theirs["sched:sched_process_exit"] == ours["sched:sched_process_exit"] == 4


def test_what_cannot_be_kept_is_counted(start: Start) -> None:
    # Given more events than the buffer holds, and nobody who fetches them
    code = "import os, sys\nprint('ready', flush=True)\nsys.stdin.readline()\nfor _ in range(400_000): os.getppid()\n"
    process = start(sys.executable, "-c", code, stdin=subprocess.PIPE)
    with EventRecorder(TraceOptions(select(["getppid"]), Scope(process.pid), summary=True)) as recorder:
        go_on(process)
        process.wait()
        kept = len(last_events(recorder))
        summary = recorder.summary()

    # Then what came and what was lost adds up, and the sums have lost nothing
    assert 0 < kept < 400_000
    assert kept + summary.collection.dropped == 400_000
    assert lines(summary.collection) == [f"lost: {400_000 - kept:,} system calls"]
    assert [(one.event, one.count) for one in summary.stats] == [("getppid", 400_000)]


@pytest.mark.parametrize("version", ["3.8", "3.11", "3.13", "3.13t"])
def test_stacks_are_shown_under_the_events_and_saved_with_them(
    cli: CommandLine, start: Start, tmp_path: Path, version: str
) -> None:
    program = start(interpreter(version), str(PROGRAMS / "events.py"), stdin=subprocess.PIPE)
    file = tmp_path / "x.trace"

    words = ("-e", "write", "-e", "exceptions:page_fault_user", "-o", str(file))
    recording = cli.start("trace", "--stacks", "--pid", str(program.pid), *words)
    assert recording.stderr
    assert "recording" in recording.stderr.readline()
    program.communicate("\n\n")
    _, remarks = recording.communicate()
    assert recording.returncode == 0, remarks
    shown = cli("trace", "--input", str(file), "--json").stdout.splitlines()

    events = [json.loads(line) for line in shown]
    callers = Counter((event["event"], event["stack"][0].partition(" (")[0]) for event in events if event.get("stack"))
    assert callers["write", "events.write_often"] == 300
    assert callers["write", "events.write_much"] == 50
    assert callers["exceptions:page_fault_user", "events.touch_pages"] >= 400
    (outermost,) = {event["stack"][-1] for event in events if event.get("stack", [""])[0].startswith("events.write")}
    assert re.fullmatch(rf"events\.<module> \({re.escape(str(PROGRAMS))}/events\.py:\d+\)", outermost)
    below = cli("trace", "--input", str(file), "-e", "write", "--max-events", "1").stdout.splitlines()
    assert "write(" in below[1]
    assert below[2].strip().startswith("events.write_often (")


@beside_others
def test_stacks_need_a_process_and_events(cli: CommandLine) -> None:
    for words in (("--stacks",), ("--stacks", "--summary", "--pid", "1")):
        done = cli("trace", *words)

        assert done.returncode == 2
        assert "--stacks shows the stacks of one process" in done.stderr
