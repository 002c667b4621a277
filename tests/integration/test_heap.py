"""`pprofpy heap` as users and targets meet it: what it prints and saves; that it leaves no trace, however it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pprofpy.collectors import attach
from pprofpy.collectors.heap import HeapOptions
from pprofpy.collectors.heapagent.link import Agent, agent_call, sampler_library
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.formats import encode
from pprofpy.formats.files import read_profile
from pprofpy.reports import growth
from pprofpy.target import open_target
from tests import go_pprof
from tests.conftest import PROGRAMS, CommandLine, Start, interpreter, wait_until
from tests.heap import (
    LOAD,
    VERSIONS,
    Program,
    Tasks,
    at_line,
    is_sampled,
    is_traced,
    line_of,
    off_by,
    open_files,
    record,
    record_tasks,
    sampler_state,
    task,
    thread_names,
    wait_for_recording,
)
from tests.hostile.harness import load

GONE = (0, 0, 0, 0, 0, 0)
NOTICED_WITHIN_S = 2.0
FINE = HeapOptions(engine="sampling", sample_bytes=64 << 10)
EXACT = HeapOptions(engine="tracemalloc")

needs_sampler = pytest.mark.skipif(sampler_library() is None, reason="there was no C compiler")


def start_load(start: Start, python: str = sys.executable, *options: str) -> Program:
    return start(python, *options, str(LOAD), stdin=subprocess.PIPE)


def seconds_until(condition: Callable[[], bool], what: str) -> float:
    begin = time.monotonic()
    wait_until(condition, what)
    return time.monotonic() - begin


# -- what it prints and saves ----------------------------------------------------------------------------------------


@needs_sampler
def test_the_leaking_line_is_first_and_the_file_is_a_pprof_file(cli: CommandLine, start: Start, tmp_path: Path) -> None:
    program = start_load(start)
    command = ["heap", "--pid", str(program.pid), "-d", "1m", "--sample-bytes", "64k", "-o", str(tmp_path / "h.pb.gz")]
    with cli.start(*command) as running:
        wait_for_recording(running, lambda: is_sampled(program.pid))
        task(program, "leak")
        running.send_signal(signal.SIGINT)  # Ctrl-C: what there is, is kept
        output, remarks = running.communicate()

    assert running.returncode == 0, remarks
    lines = output.splitlines()
    first = lines[next(number for number, line in enumerate(lines) if "flat%" in line) + 1]
    assert f"heap_load.leak {LOAD}:{line_of('leak')}" in first
    assert "since attach" in output
    assert re.search(r"Memory of the process: \S+ RSS, \S+ PSS, \S+ USS", output)
    assert f"saved: {tmp_path / 'h.pb.gz'}" in remarks
    listed = cli("list", "leak", str(tmp_path / "h.pb.gz"))
    assert "# line: leak" in listed.stdout
    drawn = cli("flamegraph", str(tmp_path / "h.pb.gz"), "-o", str(tmp_path / "heap.svg"))
    assert drawn.returncode == 0
    assert cli("top", "--sample-index", "alloc_objects", str(tmp_path / "h.pb.gz")).returncode == 0


@needs_sampler
def test_go_reads_every_sample_type_and_compares(start: Start, tmp_path: Path) -> None:
    program = start_load(start)
    for name, tasks in (("before", ["leak"]), ("after", ["leak", "leak"])):
        recording, _ = record_tasks(program, FINE, *tasks)
        (tmp_path / f"{name}.pb.gz").write_bytes(encode(recording.profile, "pprof"))
        wait_until(lambda: sampler_state(program.pid) == GONE, "the agent has noticed the end")

    for sample_type in ("inuse_space", "inuse_objects", "alloc_space", "alloc_objects"):
        shown = go_pprof.pprof(tmp_path, f"-sample_index={sample_type}", "-top", "after.pb.gz").stdout
        assert f"Type: {sample_type}" in shown
        assert re.search(r"flat%.*\n.*heap_load\.leak\n", shown)
    compared = go_pprof.pprof(
        tmp_path, "-top", "-diff_base", "before.pb.gz", "-sample_index=inuse_space", "after.pb.gz"
    )
    grown = re.search(r"([\d.]+)MB .* heap_load\.leak", compared.stdout)
    assert grown
    assert 28 < float(grown[1]) < 50  # one leak of 38.7 MB more; two estimates, each with its error


@needs_sampler
def test_the_first_snapshot_is_kept_to_compare_with(cli: CommandLine, start: Start, tmp_path: Path) -> None:
    program = start_load(start)
    last, first = tmp_path / "shop.pb.gz", tmp_path / "shop-first.pb.gz"
    words = ["-d", "1m", "--snapshots", "60", "--sample-bytes", "64k", "-o", str(last)]
    with cli.start("heap", "--pid", str(program.pid), *words) as running:
        wait_for_recording(running, lambda: is_sampled(program.pid))
        begin = time.monotonic()
        while time.monotonic() < begin + 3:  # the first snapshot comes after a second
            task(program, "shrink")
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        _, remarks = running.communicate()

    assert f"pprofpy top --diff-base {first} {last}" in remarks
    assert f"go tool pprof -sample_index=inuse_space -top -diff_base {first} {last}" in remarks
    assert {path.name for path in tmp_path.glob("*.gz")} == {first.name, last.name}
    compared = go_pprof.pprof(tmp_path, "-sample_index=inuse_space", "-top", "-diff_base", str(first), str(last))
    mine = cli("top", "--diff-base", str(first), str(last))
    for output in (compared.stdout, mine.stdout):
        assert re.search(r"flat%.*\n +\d[\d.]*MB .*heap_load\.shrink\n", output)


@needs_sampler
def test_what_grows_at_each_snapshot_is_first(start: Start) -> None:
    """A leak between any two of the snapshots (a busy machine may miss one); a large block comes once, and stays."""
    program = start_load(start)

    class Between:
        """Makes the snapshots come one after the other, each after another task."""

        rounds = 0

        def wait(self, timeout: float) -> bool:
            time.sleep(0.26)
            self.rounds += 1
            task(program, "leak")
            if self.rounds == 2:
                task(program, "big")
            return False

    options = HeapOptions(engine="sampling", sample_bytes=64 << 10, snapshots=4, duration_ns=3 * 10**9)
    recording = record(program.pid, options, Between())
    report = growth.build(recording.snapshots)

    assert 3 <= len(recording.snapshots) <= 4
    assert report.rows[0].stack[0].line == line_of("leak")
    assert report.rows[0].rises == len(recording.snapshots) - 1
    assert list(report.totals_bytes) == sorted(report.totals_bytes)


@needs_sampler
def test_json_has_memory_types_and_growth(cli: CommandLine, start: Start) -> None:
    program = start_load(start)
    task(program, "crowd")

    done = cli("heap", "-p", str(program.pid), "-d", "1", "--snapshots", "2", "--types", "--gc", "--json")

    data = json.loads(done.stdout)
    assert data["sample_type"] == "inuse_space"
    assert data["memory"]["rss_bytes"] > data["memory"]["uss_bytes"] > 0
    assert data["types"][0]["size_bytes"] >= data["types"][-1]["size_bytes"]
    assert len(data["growth"]["times_ns"]) == 2
    assert data["collection"]["got"] > 0
    assert read_profile(data["path"]).sample_types[-1].type == "inuse_space"


@needs_sampler
def test_a_command_is_recorded_until_its_end(cli: CommandLine) -> None:
    """It leaves its last words."""
    program = "kept = [bytes(100000) for _ in range(300)]; import time; time.sleep(1.5); kept += [bytes(10**7)]"

    done = cli("heap", "--functions", "--", sys.executable, "-c", program)

    assert done.returncode == 0, done.stderr
    assert "9.54MB" in done.stdout


def test_an_engine_that_cannot_know_says_so(cli: CommandLine, start: Start) -> None:
    program = start_load(start)
    words = ["heap", "-p", str(program.pid), "-d", "300ms", "--engine", "tracemalloc", "--sample-index", "alloc_space"]

    done = cli(*words)

    assert done.returncode == 2
    assert "no sample type 'alloc_space'" in done.stderr
    assert "inuse_objects, inuse_space" in done.stderr
    assert "tracemalloc slows the process" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sample-bytes", "many"), "not a size"),
        (("--sample-bytes", "0"), "out of range"),
        (("--frames", "1000"), "out of range"),
        (("--snapshots", "0"), "--snapshots must be 1 or more"),
        (("-d", "0"), "out of range"),
    ],
)
def test_values_out_of_range_are_refused(cli: CommandLine, words: tuple[str, ...], message: str) -> None:
    done = cli("heap", "--pid", "1", *words)

    assert done.returncode == 2
    assert message in done.stderr


# -- how it ends -------------------------------------------------------------------------------------------------------


@needs_sampler
@pytest.mark.parametrize("version", VERSIONS)
def test_killed_just_before_the_sampler_starts(start: Start, tmp_path: Path, version: str) -> None:
    """Its watch finds nobody at once, and takes away what the sampler is about to use: the target crashed."""
    library = tmp_path / "sampler.so"
    library.write_bytes(sampler_library() or b"")

    program = start(interpreter(version), str(PROGRAMS / "ownerless.py"), str(library), "30")

    assert program.communicate()[0] == "over\n"
    assert program.returncode == 0


@needs_sampler
@pytest.mark.parametrize("version", VERSIONS)
def test_killed_it_leaves_the_target_as_it_was_within_two_seconds(cli: CommandLine, start: Start, version: str) -> None:
    program = start_load(start, interpreter(version))
    files, threads, speed = open_files(program.pid), thread_names(program.pid), task(program, "speed")[1]
    with cli.start("heap", "--pid", str(program.pid), "-d", "1m") as running:
        wait_for_recording(running, lambda: is_sampled(program.pid))
        task(program, "leak")
        running.kill()

    noticed_s = seconds_until(lambda: sampler_state(program.pid) == GONE, "the agent has noticed")

    assert noticed_s < NOTICED_WITHIN_S * load()
    wait_until(lambda: thread_names(program.pid) == threads, "the watch is over")
    assert open_files(program.pid) == files
    assert task(program, "leak")[0] == 10_000
    wait_until(lambda: task(program, "speed")[1] < 1.3 * speed + 5, "it is as fast as before")


def test_killed_while_it_opens_the_agent_it_leaves_no_file_behind(start: Start) -> None:
    """Before it has locked the control file, and before an engine has begun: nobody else would close the file."""
    program = start_load(start)
    files, threads = open_files(program.pid), thread_names(program.pid)

    attach.run(open_target(program.pid), agent_call("open_control()"))
    opened_only = open_files(program.pid)
    wait_until(lambda: open_files(program.pid) == files, "the file that nobody has locked is closed")
    Agent(open_target(program.pid)).close()
    wait_until(lambda: open_files(program.pid) == files, "the file that nobody locks any more is closed")
    wait_until(lambda: thread_names(program.pid) == threads, "the watch is over")

    assert opened_only == files + 1


def test_what_is_started_for_one_that_has_gone_is_stopped(start: Start) -> None:
    """A call may begin after pprofpy was killed, and after the watch has ended."""
    program = start_load(start)
    session = Agent(open_target(program.pid))
    files = open_files(program.pid)
    session.close()
    wait_until(lambda: open_files(program.pid) < files, "the control file is closed")

    session.call("start_tracing(1)")

    wait_until(lambda: not is_traced(program.pid), "it is stopped")


def test_killed_it_leaves_no_tracing_behind(cli: CommandLine, start: Start) -> None:
    program = start_load(start)
    with cli.start("heap", "--pid", str(program.pid), "-d", "1m", "--engine", "tracemalloc") as running:
        wait_for_recording(running, lambda: is_traced(program.pid))
        running.kill()

    noticed_s = seconds_until(lambda: not is_traced(program.pid), "the agent has noticed")

    assert noticed_s < NOTICED_WITHIN_S * load()


@needs_sampler
def test_the_watch_needs_no_interpreter_lock(cli: CommandLine, start: Start) -> None:
    """The target sits in a long call that keeps the lock: nothing of Python can run there, and nothing has to."""
    code = (
        "import ctypes, sys; print('ready', flush=True); sys.stdin.readline()\n"
        "ctypes.PyDLL(None).sleep(4); print('woken', flush=True); sys.stdin.readline()"
    )
    program = start(sys.executable, "-c", code, stdin=subprocess.PIPE)
    files = open_files(program.pid)
    with cli.start("heap", "--pid", str(program.pid), "-d", "1m") as running:
        wait_for_recording(running, lambda: is_sampled(program.pid))
        assert program.stdin
        program.stdin.write("\n")
        program.stdin.flush()
        running.kill()

    noticed_s = seconds_until(lambda: open_files(program.pid) == files, "the control file is closed")

    assert noticed_s < NOTICED_WITHIN_S * load()


def test_a_target_that_traces_is_used_as_it_is(cli: CommandLine, start: Start) -> None:
    """Blocks from before the attach are seen, and it traces on."""
    program = start_load(start, sys.executable, "-Xtracemalloc=3")
    task(program, "leak")

    done = cli("heap", "-p", str(program.pid), "-d", "200ms", "--json")

    data = json.loads(done.stdout)
    assert data["rows"][0]["name"] == "heap_load.leak"
    assert off_by(data["rows"][0]["flat"], 40_570_000) < 0.01
    assert "since it began to trace" in data["collection"]["target"]
    assert "slows" not in done.stderr
    assert is_traced(program.pid)


def test_tracing_stops_while_threads_are_born(start: Start) -> None:
    """Before 3.12.9 and 3.13.2 the interpreter itself crashes of that (cpython#128679), most of the times."""
    program = start_load(start)
    task(program, "births")
    for _ in range(5):
        record_tasks(program, EXACT, "leak")

    assert task(program, "leak")[0] == 10_000


@needs_sampler
def test_a_second_pprofpy_is_refused_and_does_not_disturb(start: Start) -> None:
    program = start_load(start)

    class Intruder(Tasks):
        def wait(self, timeout: float) -> bool:
            with pytest.raises(NotPossibleError, match="another pprofpy"):
                Agent(open_target(program.pid))
            return super().wait(timeout)

    recording = record(program.pid, FINE, Intruder(program, "leak"))

    assert off_by(at_line(recording.profile, "leak")["inuse_space"], 40_570_000) < 0.2


@pytest.mark.parametrize("version", ["3.8", "3.11", "3.13"])
@pytest.mark.parametrize("engine", [pytest.param("sampling", marks=needs_sampler), "tracemalloc"])
def test_a_forked_child_is_free_of_it(start: Start, version: str, engine: str) -> None:
    program = start_load(start, interpreter(version), "-Wignore")

    _, truth = record_tasks(program, HeapOptions(engine=engine, sample_bytes=1024), "leak", "fork", "leak")

    assert truth[1][1] == 0  # the status with which the child ended


@pytest.mark.parametrize("version", ["3.8", "3.11", "3.13"])
@pytest.mark.parametrize("engine", [pytest.param("sampling", marks=needs_sampler), "tracemalloc"])
def test_nothing_is_loaded_from_disk(start: Start, version: str, engine: str) -> None:
    """Not even modules of the standard library: the target may have none (PyInstaller, a chroot)."""
    code = (
        "import sys; print('ready', flush=True)\n"
        "for _ in sys.stdin:\n"
        "    print(*(name for name, one in sys.modules.items() if getattr(one, '__file__', '')), flush=True)"
    )
    program = start(interpreter(version), "-S", "-c", code, stdin=subprocess.PIPE)
    stdin, stdout = program.stdin, program.stdout
    assert stdin
    assert stdout

    def loaded() -> set[str]:
        stdin.write("\n")
        stdin.flush()
        return set(stdout.readline().split())

    before = loaded()
    record(program.pid, HeapOptions(engine=engine, types=True), Ends())

    assert loaded() - before - {"_pprofpy_sampler"} == set()


class Ends:
    """Ends a recording when it has begun."""

    def wait(self, _timeout: float) -> bool:
        return True


@pytest.mark.parametrize("engine", [pytest.param("sampling", marks=needs_sampler), "tracemalloc"])
def test_a_forked_child_does_not_keep_the_control_file(start: Start, engine: str) -> None:
    code = (
        "import os, sys; print('ready', flush=True); sys.stdin.readline()\n"
        "if not os.fork():\n"
        "    print(*(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]), flush=True)\n"
        "    os._exit(0)\n"
        "os.wait(); sys.stdin.readline()"
    )
    program = start(sys.executable, "-Wignore", "-c", code, stdin=subprocess.PIPE)
    stdin, stdout = program.stdin, program.stdout
    assert stdin
    assert stdout

    ask, answer, said = stdin, stdout, []

    class Forks:
        def wait(self, _timeout: float) -> bool:
            ask.write("\n")
            ask.flush()
            said.append(answer.readline())
            return True

    record(program.pid, HeapOptions(engine=engine), Forks())

    assert "pipe" in said[0]
    assert "memfd" not in said[0]


@needs_sampler
@pytest.mark.parametrize("version", ["3.8", "3.11", "3.13"])
def test_again_and_again_on_four_busy_threads(start: Start, version: str) -> None:
    """Coarse and fine, both engines; nothing is left over."""
    program = start_load(start, interpreter(version))
    task(program, "crowd")
    files, threads = open_files(program.pid), len(thread_names(program.pid))
    for engine, sample_bytes in (("sampling", 65536), ("sampling", 1000), ("tracemalloc", 1), ("sampling", 1)):
        options = HeapOptions(engine=engine, sample_bytes=sample_bytes)
        recording, _ = record_tasks(program, options, "leak")
        assert at_line(recording.profile, "leak")["inuse_space"] > 30e6
        wait_until(lambda: len(thread_names(program.pid)) == threads, "the watch is over")

    assert open_files(program.pid) == files
    assert sampler_state(program.pid) == GONE


@needs_sampler
def test_a_target_that_is_killed_meanwhile(start: Start) -> None:
    program = start_load(start)

    class Killer(Tasks):
        def wait(self, timeout: float) -> bool:
            os.kill(program.pid, signal.SIGKILL)
            program.wait()
            return False

    with pytest.raises(TargetError, match="ended before its heap could be read"):
        record(program.pid, FINE, Killer(program))


@needs_sampler
def test_a_target_that_ends_meanwhile_leaves_its_last_words(start: Start) -> None:
    program = start_load(start)

    class Last(Tasks):
        def wait(self, timeout: float) -> bool:
            if program.poll() is None:
                task(program, "leak")
                assert program.stdin
                program.stdin.write("stop\n")
                program.stdin.flush()
                program.wait()
            return False

    recording = record(program.pid, FINE, Last(program))

    assert off_by(at_line(recording.profile, "leak")["alloc_space"], 40_570_000) < 0.2


def test_without_the_sampler_tracemalloc_is_taken(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pprofpy.collectors.heapagent.link.SAMPLER", tmp_path / "missing.so")
    program = start_load(start)

    recording = record(program.pid, HeapOptions(), Tasks(program, "leak"))

    assert recording.profile.collection.engine.startswith("tracemalloc")
    assert any("not compiled" in note for note in recording.profile.collection.notes)
    with pytest.raises(NotPossibleError, match="not compiled"):
        record(program.pid, FINE, Tasks(program, "leak"))


@pytest.mark.parametrize(
    "claim", ["sys.abiflags = 't'", "sys.version = '3.13.5 experimental free-threading build (main)'", "real"]
)
def test_a_free_threaded_build_is_not_sampled_and_never_gets_the_library(claim: str, start: Start) -> None:
    """Its structures are others, even if it runs with its lock. Any version can say that it is one."""
    if claim == "real":
        process = start(interpreter("3.13t"), str(LOAD), stdin=subprocess.PIPE)
    else:
        program = f"import runpy, sys; {claim}; runpy.run_path({str(LOAD)!r}, run_name='__main__')"
        process = start(sys.executable, "-c", program, stdin=subprocess.PIPE)

    with pytest.raises(NotPossibleError, match="needs an interpreter with a global lock") as refused:
        record(process.pid, FINE, Tasks(process, "leak"))
    recordings = [record_tasks(process, EXACT, "leak"), record_tasks(process, EXACT, "leak")]
    chosen = record(process.pid, HeapOptions(), Tasks(process, "leak"))

    assert "--engine tracemalloc" in refused.value.hint  # which works:
    for recording, [(_, truth)] in recordings:
        assert recording.profile.collection.engine.startswith("tracemalloc")
        assert off_by(at_line(recording.profile, "leak")["inuse_space"], truth) < 0.05
    assert any("global lock" in note for note in chosen.profile.collection.notes)
    assert sampler_state(process.pid) == ()
    assert process.poll() is None


MAIN_THREAD_HAS_ENDED = """
import threading, time
kept = []
def keep():
    while len(kept) < 5000:
        kept.append(bytearray(10_000))
        time.sleep(0.001)
    time.sleep(3600)
threading.Thread(target=keep).start()
print("ready", flush=True)
"""


@needs_sampler
def test_a_program_whose_main_thread_has_ended_is_sampled_but_not_traced(cli: CommandLine, start: Start) -> None:
    """Python 3.12 starts no thread there any more: none that could stop the tracing."""
    program = start(interpreter("3.12"), "-c", MAIN_THREAD_HAS_ENDED)
    lives = "import threading; result = str(threading.main_thread().is_alive())"
    wait_until(lambda: attach.run(open_target(program.pid), lives).result == "False", "its main thread has ended")

    sampled = cli("heap", "--pid", str(program.pid), "-d", "0.3", "--sample-bytes", "1k")
    traced = cli("heap", "--pid", str(program.pid), "-d", "0.3", "--engine", "tracemalloc")

    assert "keep" in sampled.stdout, sampled.stderr
    assert traced.returncode == 4
    assert "its main thread has ended: nobody would stop the tracing" in traced.stderr
    assert not is_traced(program.pid)
