"""What cannot be entered is refused before anything is touched, and the reason is named."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pprofpy.collectors.attach import refusals, run
from pprofpy.collectors.attach.ptrace import StuckError, Tracee, trace
from pprofpy.collectors.attach.seccomp import verdict
from pprofpy.errors import NotPossibleError
from pprofpy.target import open_target
from tests.attaching import ROOT, TWO_IDLE_THREADS, attach_to, traced_or_stopped
from tests.conftest import Start, interpreter, wait_until
from tests.control_groups import control_group


def test_another_tracer_is_named(start: Start) -> None:
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    process = start(sys.executable, "-c", TWO_IDLE_THREADS)
    target = attach_to(process)
    with subprocess.Popen(["strace", "-f", "-p", str(process.pid)], stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr
        assert "attached" in strace.stderr.readline()
        wait_until(lambda: all(traced_or_stopped(thread.tid) for thread in target.threads()), "strace has all threads")
        with pytest.raises(NotPossibleError, match="is being traced by strace") as raised:
            run(target, "pass")
        strace.terminate()

    assert "end strace" in raised.value.hint
    assert run(target, "result = '1'").result == "1"


def test_a_stopped_process_is_refused(start: Start) -> None:
    process = start(sys.executable, "-c", TWO_IDLE_THREADS)
    target = attach_to(process)
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: target.state() == "T", "it is stopped")

    with pytest.raises(NotPossibleError, match="is stopped") as raised:
        run(target, "pass")

    assert "kill -CONT" in raised.value.hint


@pytest.mark.parametrize(
    ("hierarchy", "switch", "on", "off", "says"),
    [
        ("", "cgroup.freeze", "1", "0", "cgroup.events"),
        ("unified", "cgroup.freeze", "1", "0", "cgroup.events"),
        ("freezer", "freezer.state", "FROZEN", "THAWED", "freezer.state"),
    ],
)
def test_a_frozen_process_is_refused(
    hierarchy: str, switch: str, on: str, off: str, says: str, start: Start, request: pytest.FixtureRequest
) -> None:
    group = control_group(Path("/sys/fs/cgroup", hierarchy), switch, request)
    process = start(sys.executable, "-c", TWO_IDLE_THREADS)
    target = attach_to(process)
    try:
        (group / "cgroup.procs").write_text(str(process.pid))
        (group / switch).write_text(on)
    except OSError as error:
        pytest.skip(f"nothing can be frozen there: {error}")
    try:
        wait_until(lambda: bool(re.search("frozen 1|FROZEN", (group / says).read_text())), "it is frozen")
        with pytest.raises(NotPossibleError, match="is frozen"):
            run(target, "pass")
    finally:
        (group / switch).write_text(off)

    assert run(target, "result = '1'").result == "1"


VFORK = """
import ctypes, signal, threading, time
libc, stack = ctypes.CDLL(None), ctypes.create_string_buffer(65536)
CLONE_VM, CLONE_VFORK = 0x100, 0x4000
end = ctypes.addressof(stack) + 65536 & ~15
threading.Thread(target=libc.clone, daemon=True, args=(
    libc.pause, ctypes.c_void_p(end), CLONE_VM | CLONE_VFORK | signal.SIGCHLD, None)).start()
print("ready", flush=True)
time.sleep(3600)
"""


def test_a_process_in_its_parents_memory_is_refused(start: Start) -> None:
    """What subprocess starts is one for a moment, until it executes its program."""
    process = start(sys.executable, "-c", VFORK)
    wait_until(lambda: bool(children(process.pid)), "it has a child")
    (child,) = children(process.pid)

    with pytest.raises(NotPossibleError, match="in its parent's memory"):
        run(open_target(child), "pass")

    assert run(attach_to(process), "result = '1'").result == "1"
    os.kill(child, signal.SIGKILL)


def test_a_thread_that_nothing_interrupts_is_let_go(start: Start) -> None:
    """It waits for its child to leave its memory, and would stop for us only after that."""
    process = start(sys.executable, "-c", VFORK)
    wait_until(lambda: bool(children(process.pid)), "it has a child")
    stuck = max(thread.tid for thread in attach_to(process).threads())

    with pytest.raises(StuckError):
        trace(stuck, Tracee.halt)

    assert not traced_or_stopped(stuck)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    wait_until(lambda: len(attach_to(process).threads()) == 1, "it has gone on, to its end")
    assert run(attach_to(process), "result = '1'").result == "1"


def children(pid: int) -> list[int]:
    folder = Path(f"/proc/{pid}/task")
    return [int(child) for task in folder.iterdir() for child in (task / "children").read_text().split()]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_another_users_process_is_refused(start: Start) -> None:
    process = start(interpreter("system"), "-c", TWO_IDLE_THREADS)
    program = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pprofpy.collectors.attach import run
from pprofpy.target import open_target
target = open_target(int(sys.argv[1]))
os.setuid(65534)
run(target, "pass")
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(process.pid), str(ROOT)], capture_output=True, text=True, check=False
    )

    assert "TargetPermissionError" in done.stderr


def test_a_machine_that_forbids_it_altogether_is_named(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = attach_to(start(sys.executable, "-c", TWO_IDLE_THREADS))
    scope = tmp_path / "ptrace_scope"
    monkeypatch.setattr(refusals, "_PTRACE_SCOPE", scope)

    scope.write_text("3\n")
    assert "ptrace_scope is 3" in refusals.not_allowed(target).message
    scope.write_text("1\n")
    assert "ptrace_scope" not in refusals.not_allowed(target).message


def test_an_old_python_is_refused(start: Start) -> None:
    with pytest.raises(NotPossibleError, match="too old"):
        run(attach_to(start(interpreter("3.7"), "-c", TWO_IDLE_THREADS)), "pass")


SECCOMP = """
import ctypes, struct, threading, time
def load(): return 0x20, 0, 0, 0  # the number of the call
def jump(number, to): return 0x15, to, 0, number
rules = [load(), jump({forbidden}, 1), (6, 0, 0, 0x7fff0000), (6, 0, 0, 0x80000000)]
code = b"".join(struct.pack("<HBBI", *rule) for rule in rules)
buffer = ctypes.create_string_buffer(code)
program = struct.pack("<HxxxxxxQ", len(rules), ctypes.addressof(buffer))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read filters")
def test_a_filter_that_would_kill_is_seen_before_it_does(start: Start) -> None:
    tkill, ptrace = 200, 101

    process = start(sys.executable, "-c", SECCOMP.format(forbidden=tkill) + TWO_IDLE_THREADS)
    with pytest.raises(NotPossibleError, match="its filters forbid tkill"):
        run(attach_to(process), "pass")
    assert process.poll() is None

    process = start(sys.executable, "-c", SECCOMP.format(forbidden=ptrace) + TWO_IDLE_THREADS)
    assert run(attach_to(process), "result = '1'").result == "1"


def test_a_filter_is_judged_by_what_it_does_with_our_calls() -> None:
    def program(*rules: tuple[int, int, int, int]) -> bytes:
        return b"".join(struct.pack("<HBBI", *rule) for rule in rules)

    allow, refuse, kill = (6, 0, 0, 0x7FFF0000), (6, 0, 0, 0x50026), (6, 0, 0, 0)
    only_clone3 = program((0x20, 0, 0, 0), (0x15, 0, 1, 435), refuse, allow)
    writable_code = program((0x20, 0, 0, 0), (0x15, 0, 3, 9), (0x20, 0, 0, 32), (0x45, 0, 1, 4), kill, allow)

    assert verdict((program(allow),)) == ""
    assert verdict((only_clone3,)) == ""
    assert verdict((writable_code,)) == ""
    assert (
        verdict(
            (
                program(allow),
                program(kill),
            )
        )
        == "its filters forbid rt_sigprocmask"
    )
