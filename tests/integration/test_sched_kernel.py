"""How the probes behave in the kernel: what they leave behind, whom they follow, what they refuse."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder
from pprofpy.model.latency import LatencyRecord, ThreadWaits
from tests.conftest import beside_others
from tests.integration.sched_reference import loading
from tests.recorders import latency_record, long_waits

T = TypeVar("T")

pytestmark = pytest.mark.ebpf

PPROFPY = [sys.executable, "-m", "pprofpy"]
_BPF_SYSTEM_CALL, _PROG_BY_ID, _MAP_BY_ID = 321, 13, 14


def record(program: str, *, scope: Callable[[int], Scope] = Scope, trace: bool = False) -> tuple[LatencyRecord, int]:
    """Record a Python program from its first input to its last output; returns its pid, too."""
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys\nprint('ready', flush=True); sys.stdin.read(1)\n{program}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        with SchedRecorder(SchedOptions(scope(process.pid), trace=trace)) as recorder:
            process.stdin.write("g")
            process.stdin.flush()
            while process.stdout.readline() == "tick\n":
                recorder.poll()
                recorder.drain()
            result = latency_record(recorder.finish())
        process.kill()
        return result, process.pid


def all_waits(threads: tuple[ThreadWaits, ...]) -> int:
    return sum(one.woken.count + one.preempted.count for one in threads)


@beside_others
def test_kill_9_leaves_nothing_in_the_kernel() -> None:
    # Given a recording of the whole system, with everything switched on
    command = [*PPROFPY, "sched-latency", "-d", "100", "--threshold", "1s", "--trace", "--json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as recording:
        assert recording.stderr
        assert recording.stderr.readline().startswith("recording")
        programs, maps = bpf_ids(recording.pid, "prog_id"), bpf_ids(recording.pid, "map_id")
        assert len(programs) >= 4
        assert len(maps) >= 5

        # When it is killed without a chance to clean up
        recording.send_signal(signal.SIGKILL)
        recording.wait()

    # Then its programs and maps are gone (the kernel frees them after a grace period)
    wait_for(lambda: not any(exists(_PROG_BY_ID, one) for one in programs))
    wait_for(lambda: not any(exists(_MAP_BY_ID, one) for one in maps))


def test_two_recordings_at_once_see_the_same() -> None:
    with (
        loading("messages", "1", "300") as program,
        SchedRecorder(SchedOptions(Scope(program.pid))) as first,
        SchedRecorder(SchedOptions(Scope(program.pid))) as second,
    ):
        program.work()
        ours, theirs = latency_record(first.finish()), latency_record(second.finish())
    assert all_waits(ours.threads) > 500
    assert all_waits(ours.threads) == pytest.approx(all_waits(theirs.threads), abs=5)


def test_ten_thousand_short_threads_are_all_counted() -> None:
    result, pid = record("""
import threading
for round in range(20):
    for _ in range(500):
        thread = threading.Thread(target=int); thread.start(); thread.join()
    print("tick", flush=True)
print("end", flush=True); sys.stdin.read(1)
""")
    # Nothing is lost of what the kernel shows (some virtual machines hide a switch in ten thousand)
    assert result.collection.dropped < 20
    assert {one.pid for one in result.threads} == {pid}
    # Each thread waits at least once: between its creation and its first breath.
    assert len({one.tid for one in result.threads}) >= 10_001
    assert all_waits(result.threads) >= 10_000


@beside_others
@pytest.mark.parametrize("children", [False, True], ids=["alone", "with children"])
def test_children_are_followed_if_they_are_wanted(children: bool) -> None:
    result, pid = record(
        """
import os, subprocess
for _ in range(3):
    if not (child := os.fork()):
        subprocess.run(["true"]); os._exit(0)
    os.waitpid(child, 0)
print("end", flush=True); sys.stdin.read(1)
""",
        scope=lambda pid: Scope(pid, children=children),
    )
    pids = {one.pid for one in result.threads}
    assert len(pids) == (7 if children else 1)
    assert pid in pids
    assert ("true" in {one.name for one in result.threads}) == children


@beside_others
def test_exec_changes_the_name_and_loses_nothing() -> None:
    result, pid = record("""
import os
os.execv(sys.executable, [sys.executable, "-c",
  "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'renamed'); print('end', flush=True); sys.stdin.read(1)"])
""")
    assert {(one.name, one.comm) for one in result.threads if one.tid == pid} == {("MainThread", "renamed")}


@beside_others
def test_a_target_in_another_pid_namespace_is_known_by_its_outer_pid(tmp_path: Path) -> None:
    inner = "import time\nwhile True: time.sleep(0.005)\n"
    with subprocess.Popen(["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", inner]) as outer:
        pid = wait_for(lambda: child_of(outer.pid))
        assert inner_pid(pid) == 1
        done = subprocess.run(
            [*PPROFPY, "sched-latency", "-p", str(pid), "-d", "1", "--json"],
            capture_output=True, text=True, check=False, env={**os.environ, "PPROFPY_DIR": str(tmp_path)},
        )  # fmt: skip
        outer.kill()
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["tid"] for row in rows] == [pid]
    assert rows[0]["count"] > 10


@beside_others
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
@pytest.mark.parametrize("command", ["sched-latency", "off-cpu"])
def test_without_root_it_exits_with_4_and_says_how_to_grant_it(command: str) -> None:
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all", *PPROFPY, command, "-d", "1"],
        capture_output=True, text=True, check=False, env={**os.environ, "HOME": "/nonexistent"},
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "CAP_BPF" in done.stderr
    assert "sudo" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_long_wait_names_who_had_the_cpu() -> None:
    # Given two threads' worth of work for the one CPU that both processes may use
    spin = "import os\nos.sched_setaffinity(0, {0})\nprint(flush=True)\nwhile True: pass"
    with (
        subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as hog,
        subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as victim,
    ):
        assert hog.stdout
        assert victim.stdout
        hog.stdout.readline()
        victim.stdout.readline()
        with SchedRecorder(SchedOptions(Scope(victim.pid), threshold_ns=500_000)) as recorder:
            waits = wait_for(lambda: [one for one in long_waits(recorder) if hog.pid in {part.pid for part in one.ran}])
        hog.kill()
        victim.kill()
    # Then a wait names the other one, says that it took the CPU away, and accounts for the whole time
    assert waits[0].tid == victim.pid
    assert waits[0].was_preempted
    assert waits[0].cpu == 0
    assert sum(part.duration_ns for part in waits[0].ran) + waits[0].unknown_ns == waits[0].wait_ns


@beside_others
def test_where_programs_did_not_come_with_the_package_the_compiler_is_needed_but_once(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from pprofpy.collectors.kernel import cache, compiler, program
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.sched_latency import SchedOptions, SchedRecorder
cache.cache_folder = lambda: Path(sys.argv[1])
in_child, compiled = compiler.in_child, []
program.shipped = lambda unit: None
compiler.in_child = lambda work: compiled.append(work) or in_child(work)
with SchedRecorder(SchedOptions(Scope())) as recorder:
    recorder.finish()
print(bool(compiled))
"""
    words = [sys.executable, "-c", program, str(tmp_path)]
    compiled = [subprocess.run(words, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert compiled == ["True\n", "False\n"]


# -- helpers -----------------------------------------------------------------------------------------------------------


def bpf_ids(pid: int, kind: str) -> set[int]:
    """The ids of the BPF programs or maps that a process holds."""
    found = set()
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        found |= {int(one) for one in re.findall(rf"^{kind}:\s*(\d+)", entry.read_text(), re.MULTILINE)}
    return found


def exists(command: int, identity: int) -> bool:
    """Does the kernel still have a BPF program or map of this id?"""
    attributes = ctypes.create_string_buffer(identity.to_bytes(4, "little"), 64)
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(_BPF_SYSTEM_CALL, command, attributes, 64)
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor >= 0)


def wait_for(condition: Callable[[], T]) -> T:
    """What `condition` returns, as soon as it is true."""
    while not (result := condition()):
        os.sched_yield()
    return result


def child_of(pid: int) -> int:
    """The Python that `unshare` has started, once it is Python."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children and "python" in str(Path(f"/proc/{children[0]}/exe").readlink()) else 0


def inner_pid(pid: int) -> int:
    """A process's id as it sees it itself."""
    match = re.search(r"^NSpid:.*\s(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1])
