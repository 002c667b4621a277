"""Attaching to live interpreters: what comes back, in whatever state the target is."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pprofpy.collectors.attach import CodeError, NotAnsweredError, run
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.target import Target, open_target
from tests.attaching import OLD_AND_NEW, ROOT, TWO_IDLE_THREADS, attach_to
from tests.conftest import PROGRAMS, Start, interpreter, wait_until
from tests.unit.test_cpython_living import another_library, library_of

VERSIONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.13t", "3.14", "3.15", "3.11-musl", "system"]
CASES = {
    "sleep": "time.sleep(1.0); print('over', flush=True)",
    "recv": "print('over' if socket_.recv(9) == b'go' else 'wrong', flush=True)",
    "select": "print('wrong' if any(select.select([socket_], [], [], 1.0)) else 'over', flush=True)",
    "poll": "p = select.poll(); p.register(socket_, select.POLLIN)\n"
    "print('wrong' if p.poll(1000) else 'over', flush=True)",
    "lock": "l = threading.Lock(); l.acquire(); print('wrong' if l.acquire(timeout=1.0) else 'over', flush=True)",
    "join": "t = threading.Thread(target=time.sleep, args=(1.0,)); t.start(); t.join(); print('over', flush=True)",
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(1.0)); print('over', flush=True)",
    "waitpid": "p = os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '1.0'); os.waitpid(p, 0); print('over', flush=True)",
    "busy": "t = time.monotonic() + 1.0\nwhile time.monotonic() < t: sum(range(99))\nprint('over', flush=True)",
    "malloc": "t = time.monotonic() + 1.0\nwhile time.monotonic() < t: [bytes(n) for n in range(500, 3000)]\n"
    "print('over', flush=True)",
}  # fmt: skip
TIMED = {case for case in CASES if case != "recv"}
PREAMBLE = """
import os, select, socket, sys, threading, time
socket_ = socket.socket(fileno=os.dup(0)) if {has_socket} else None
def queued_s():
    with open("/proc/thread-self/schedstat") as file: return int(file.read().split()[1]) / 1e9
print("ready", flush=True)
start, queued = time.monotonic(), queued_s()
{case}
print(time.monotonic() - start, queued_s() - queued, flush=True)
"""


# -- what comes back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_code_runs_in_a_live_interpreter_and_leaves_nothing(version: str, start: Start) -> None:
    target = attach_to(start(interpreter(version), "-c", TWO_IDLE_THREADS))
    look = (
        "import gc, sys, threading; result = repr((sorted(sys.modules['__main__'].__dict__), threading.active_count()))"
    )

    before = run(target, look).result
    answers = [run(target, "import sys; x = 1; result = '%d.%d' % sys.version_info[:2]") for _ in range(3)]

    assert {answer.result for answer in answers} == {".".join(target.interpreter.version.split(".")[:2])}
    assert run(target, look).result == before
    wait_until(lambda: len(target.threads()) == 2, "the threads of the code have ended")


@pytest.mark.parametrize("version", OLD_AND_NEW)
def test_code_gets_into_a_program_that_makes_system_calls_all_the_while(version: str, start: Start) -> None:
    """When stopped, it is nearly always at the end of a call, where it might hold a lock of the C library."""
    target = attach_to(start(interpreter(version), str(PROGRAMS / "burn.py")))

    assert [run(target, "result = 'in'").result for _ in range(5)] == ["in"] * 5


@pytest.mark.parametrize("version", ["3.8", "3.11", "3.12", "3.13", "3.14", "3.15"])
def test_nothing_is_left_in_lists_of_free_objects(version: str, start: Start, tmp_path: Path) -> None:
    """3.11 and 3.12 keep tuples of length 20, and never use them again."""

    def free_tuples() -> Counter[int]:
        said.truncate(0)
        run(target, "import sys; sys._debugmallocstats()")
        counts = re.findall(r"(\d+) free (\d+)-sized PyTupleObjects", (tmp_path / "said").read_text())
        return Counter({int(length): int(count) for count, length in counts})

    with (tmp_path / "said").open("a") as said:
        target = attach_to(start(interpreter(version), "-c", TWO_IDLE_THREADS, stderr=said))
        before = free_tuples()
        for _ in range(20):
            run(target, "pass")
        left = free_tuples() - before
    assert sum(left.values()) < 20, left


def test_results_are_text_or_bytes_of_any_size(start: Start) -> None:
    target = attach_to(start(sys.executable, "-c", TWO_IDLE_THREADS))

    assert run(target, "result = 'größe \\ud800 \\0'").result == "größe \ud800 \0"
    assert run(target, "result = b'\\0\\xff'").result == b"\0\xff"
    assert run(target, "pass").result == ""
    assert run(target, "result = bytes(range(256)) * 200_000").result == bytes(range(256)) * 200_000


@pytest.mark.parametrize("version", OLD_AND_NEW)
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f():\n    1 / 0\nf()", "ZeroDivisionError"),
        ("syntax error", "SyntaxError"),
        ("raise SystemExit(7)", "SystemExit: 7"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("result = 42", "result must be str or bytes, not int"),
    ],
)
def test_an_exception_comes_back_as_an_error(version: str, code: str, said: str, start: Start) -> None:
    process = start(interpreter(version), "-c", TWO_IDLE_THREADS)

    with pytest.raises(CodeError, match=said):
        run(attach_to(process), code)

    assert process.poll() is None


def test_the_status_of_a_child_of_ours_is_left_to_its_popen(start: Start) -> None:
    process = start(
        sys.executable, "-c", "print('ready', flush=True); input(); raise SystemExit(7)", stdin=subprocess.PIPE
    )
    run(attach_to(process), "pass")

    process.communicate("\n")

    assert process.returncode == 7


# -- whatever the target does ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", OLD_AND_NEW)
@pytest.mark.parametrize("case", CASES)
def test_a_wait_ends_as_if_nothing_had_been(case: str, version: str, start: Start) -> None:
    """Waits are neither broken off nor begun again: an attach costs them the milliseconds of its stop at most."""
    text = PREAMBLE.format(case=CASES[case], has_socket="socket_" in CASES[case])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = start(interpreter(version), "-c", text, stdin=theirs)
        target = attach_to(process)
        stopped_s = sum(attaches(target, 0.5)) / 1e6
        if case == "recv":
            ours.send(b"go")
        assert process.stdout
        assert process.stdout.readline() == "over\n"
        took_s, queued_s = map(float, process.stdout.readline().split())  # waiting for a CPU is not our fault

    assert case not in TIMED or took_s >= 0.999
    assert case not in TIMED or took_s < 1.0 + stopped_s + queued_s + 0.5


def attaches(target: Target, duration_s: float) -> Iterator[int]:
    """Attach for so long, ten times at most, until it ends; how long each one kept a thread, in microseconds."""
    deadline = time.monotonic() + duration_s
    for _ in range(10):
        try:
            yield run(target, "pass").stopped_us
        except TargetError:
            break
        except NotPossibleError:  # on a busy machine its second may be over before this
            wait_until(lambda: not target.is_alive(), "it has ended")
            break
        if time.monotonic() > deadline:
            break
        time.sleep(duration_s / 20)


def test_a_long_computation_in_c_is_not_disturbed_and_the_code_never_runs(start: Start) -> None:
    program = (
        "import os; print('ready', flush=True); sum(range(30_000_000)); print(os.environ.get('HARMED'), flush=True)"
    )
    process = start(sys.executable, "-c", program)

    with pytest.raises(NotAnsweredError):
        run(attach_to(process), "import os; os.environ['HARMED'] = '1'", timeout_s=0.1)

    assert process.communicate()[0] == "None\n"
    assert process.returncode == 0


def test_one_of_500_threads_is_borrowed(start: Start) -> None:
    many = (
        "import threading\nfor _ in range(499): threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    target = attach_to(start(sys.executable, "-c", many + TWO_IDLE_THREADS))

    answers = [run(target, "import threading; result = str(threading.active_count())") for _ in range(5)]

    assert {answer.result for answer in answers} == {"501"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces")
def test_a_process_in_namespaces_of_its_own(start: Start) -> None:
    words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]
    outer = start(*words, interpreter("system"), "-c", TWO_IDLE_THREADS)
    inner = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())

    assert run(open_target(inner), "import os; result = str(os.getpid())").result == "1"


@pytest.mark.parametrize("mode", ["nothing", "read", "load"])
@pytest.mark.parametrize("version", [*OLD_AND_NEW, "system"])
def test_only_the_interpreter_that_is_in_use_is_called(version: str, mode: str, start: Start) -> None:
    """Functions of a libpython that was only loaded beside it end the process: `free(): invalid pointer`."""
    words = [mode, str(another_library(version))] if mode == "load" else [mode]
    process = start(interpreter(version), str(PROGRAMS / "twice_mapped.py"), *words)

    answers = [run(attach_to(process), "import gc; result = str(len(gc.get_objects()))").result for _ in range(5)]

    assert all(int(str(answer)) > 1000 for answer in answers)
    assert process.poll() is None


@pytest.mark.parametrize("version", ["3.9", "3.12"])
def test_two_interpreters_in_use_are_refused(version: str, start: Start, tmp_path: Path) -> None:
    copy = shutil.copy(library_of(version), tmp_path / "libpython3-copy.so")
    process = start(interpreter(version), str(PROGRAMS / "twice_mapped.py"), "initialize", str(copy))

    with pytest.raises(NotPossibleError, match="several interpreters are in use"):
        run(attach_to(process), "result = 'never'")

    assert process.poll() is None


SECOND_C_LIBRARY = """
#include <stdlib.h>
int pthread_create() { abort(); }
long pthread_self() { abort(); }
int pthread_detach() { abort(); }
"""


@pytest.mark.parametrize("is_code", [False, True])
def test_a_second_c_library_is_never_called(is_code: bool, start: Start, tmp_path: Path) -> None:
    """Read by somebody, it is no library; loaded, nobody can tell which of the two is the interpreter's own."""
    library = tmp_path / "libc-2.so"
    (tmp_path / "second.c").write_text(SECOND_C_LIBRARY)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "second.c"], check=True)
    load = f"import ctypes; kept = ctypes.CDLL({str(library)!r})\n"
    read = (
        f"import mmap; file = open({str(library)!r}, 'rb'); kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
    )
    process = start(sys.executable, "-c", (load if is_code else read) + TWO_IDLE_THREADS)

    if is_code:
        with pytest.raises(NotPossibleError, match="several C libraries"):
            run(attach_to(process), "result = 'never'")
    else:
        assert run(attach_to(process), "result = 'well'").result == "well"

    assert process.poll() is None


def test_two_of_us_at_once_both_get_their_answers(start: Start) -> None:
    target = attach_to(start(sys.executable, "-c", TWO_IDLE_THREADS))
    program = """
import sys
from pprofpy.collectors.attach import run
from pprofpy.target import open_target
target = open_target(int(sys.argv[1]))
print([run(target, "result = '1'").result for _ in range(60)].count("1"))
"""
    command = [sys.executable, "-c", program]
    ours = [
        subprocess.Popen([*command, str(target.pid)], stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]

    assert [process.communicate()[0] for process in ours] == ["60\n"] * 3


# -- the machine code ------------------------------------------------------------------------------------------------


def test_the_machine_code_is_what_its_source_says() -> None:
    if not shutil.which("as"):
        pytest.skip("needs binutils")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "machine_code.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
