"""Attaching to live interpreters: what comes back, that nothing is changed in the target, and how it is refused."""

from __future__ import annotations

import ast
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pprofpy.collectors.attach import CodeError, NotAnsweredError, refusals, run
from pprofpy.collectors.attach.ptrace import GoneError, StuckError, Tracee, WritableMemory, trace
from pprofpy.collectors.attach.seccomp import verdict
from pprofpy.errors import NotPossibleError, PprofpyError, TargetError
from pprofpy.target import Target, open_target, procfs
from tests.attach_steps import at_step
from tests.conftest import PROGRAMS, Start, interpreter, wait_until
from tests.unit.test_cpython_living import another_library, library_of

ROOT = Path(__file__).parents[2]
VERSIONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.13t", "3.14", "3.11-musl", "system"]
OLD_AND_NEW = ["3.8", "3.12", "3.13"]
TWO_IDLE_THREADS = """
import threading, time
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
print("ready", flush=True)
time.sleep(3600)
"""
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


def attach_to(process: subprocess.Popen[str]) -> Target:
    return open_target(process.pid)


@pytest.fixture(scope="session")
def registers(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that looks whether registers change in a system call."""
    if not shutil.which("cc") or " avx " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("needs a C compiler and AVX")
    library = tmp_path_factory.mktemp("registers") / "registers.so"
    source = PROGRAMS / "registers.c"
    subprocess.run(["cc", "-O1", "-mavx", "-mno-red-zone", "-shared", "-fPIC", "-o", library, source], check=True)
    return str(library)


@pytest.fixture
def harmless(registers: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Programs that notice harm; each must have noticed none, and ends by itself."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        out = end_harmless(process)
        found = json.loads(out)
        assert (found["wrong"], process.returncode) == ([], 0)
        assert min(found[work] for work in ("sleeps", "sums", "registers")) > 0


def end_harmless(process: subprocess.Popen[str]) -> str:
    """Have it end, which a signal does that must find the main thread asleep; what it says."""
    with process:
        try:
            wait_until(lambda: sleeps(process.pid), "the main thread sleeps")
            return process.communicate("\n", timeout=60)[0]
        finally:
            process.kill()


def start_harmless(version: str, library: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    program = [interpreter(version), str(PROGRAMS / "harmless.py"), library]
    process = subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


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


@pytest.mark.parametrize("version", ["3.8", "3.11", "3.12", "3.13", "3.14"])
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


# -- no harm ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", OLD_AND_NEW)
def test_no_register_sum_wait_or_errno_changes(
    version: str, registers: str, harmless: list[subprocess.Popen[str]]
) -> None:
    harmless.append(start_harmless(version, registers))
    target = attach_to(harmless[0])

    for _ in range(40):
        run(target, "result = '1'")


SMALL_STACK = """
import ctypes, mmap, struct, time
libc = ctypes.CDLL(None)
code, pages = mmap.mmap(-1, 4096, prot=7), mmap.mmap(-1, 1 << 20)
start, low = (ctypes.addressof(ctypes.c_char.from_buffer(one)) for one in (code, pages))
below = (1 << 20) - 16384  # the least that a stack may have: PTHREAD_STACK_MIN
pages[:] = b"full" * (1 << 18)
# A stack that is nearly full, and pause() for ever
code[:19] = b"\\x48\\xbc" + struct.pack("<Q", low + below + 6144) + b"\\xb8\\x22\\0\\0\\0\\x0f\\x05\\xeb\\xf7"
attributes, thread = ctypes.create_string_buffer(64), ctypes.c_void_p()
libc.pthread_attr_init(attributes)
libc.pthread_attr_setstack(attributes, ctypes.c_void_p(low + below), ctypes.c_size_t(16384))
assert libc.pthread_create(ctypes.byref(thread), attributes, ctypes.c_void_p(start), None) == 0
print("ready", flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("version", OLD_AND_NEW)
def test_what_lies_below_a_small_stack_stays_as_it_is(version: str, start: Start) -> None:
    """Starting a thread can take more than a stack has left: this one 6 kB."""
    process = start(interpreter(version), "-c", SMALL_STACK)
    target = attach_to(process)
    wait_until(lambda: len(target.threads()) == 2, "there is the thread with the small stack")
    small = max(thread.tid for thread in target.threads())

    answers = [run(target, LOOK_BELOW) for _ in range(5)]

    assert small in {answer.tid for answer in answers}
    assert {answer.result for answer in answers} == {"True"}


LOOK_BELOW = """
import __main__
result = str(__main__.pages[:__main__.below] == b"full" * (__main__.below // 4))
"""


@pytest.mark.parametrize("version", [*OLD_AND_NEW, "3.11-musl"])
def test_all_threads_can_change_their_group_meanwhile(version: str, start: Start) -> None:
    """The C library has each thread do it, by a signal of its own, and waits for all of them: for ours, too."""
    program = """
import os, threading, time
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
print("ready", flush=True)
changes = 0
while True:
    os.setgid(os.getgid())
    changes += 1
    time.sleep(0.001)
"""
    watch = """
import __main__, time
enough, looks = __main__.changes + 3, 0
while __main__.changes < enough and looks < 1000:
    looks += 1
    time.sleep(0.005)
result = str(__main__.changes >= enough)
"""
    target = attach_to(start(interpreter(version), "-c", program))

    assert [run(target, watch).result for _ in range(10)] == ["True"] * 10


@pytest.mark.parametrize("version", OLD_AND_NEW)
def test_no_signal_is_lost_or_late(version: str, registers: str, harmless: list[subprocess.Popen[str]]) -> None:
    """SIGUSR1 to a main thread that sleeps: its Python handler answers, each time, while we attach all the time."""
    harmless.append(start_harmless(version, registers))
    assert late_answers(harmless[0], 60) == 0


@pytest.mark.parametrize("version", OLD_AND_NEW)
@pytest.mark.parametrize(
    "company", ["", "threading.Thread(target=hashlib.pbkdf2_hmac, daemon=True, args=work).start()"]
)
def test_no_signal_is_lost_when_the_main_thread_is_borrowed(version: str, company: str, start: Start) -> None:
    """It is if it is alone, or if the others compute outside of Python."""
    program = f"""
import hashlib, os, signal, threading, time
work = ("sha256", b"x", b"y", 50_000_000)
signal.signal(signal.SIGUSR1, lambda *_: os.write(2, b"1"))
{company}
print("ready", flush=True)
time.sleep(3600)
"""
    process = start(interpreter(version), "-c", program, stderr=subprocess.PIPE)
    with process.stderr:  # type: ignore[union-attr]
        assert late_answers(process, 40) == 0


def late_answers(process: subprocess.Popen[str], signals: int) -> int:
    """Send signals, each when the main thread sleeps, and attach meanwhile; how many went without an answer for 5 s."""
    target, late, ended = attach_to(process), 0, threading.Event()
    assert process.stderr

    def attach_all_the_time() -> None:
        while not ended.is_set():
            run(target, "result = '1'")

    attaching = threading.Thread(target=attach_all_the_time)
    attaching.start()
    try:
        for _ in range(signals):
            wait_until(lambda: sleeps(process.pid), "the main thread sleeps")
            time.sleep(random.random() * 0.003)
            os.kill(process.pid, signal.SIGUSR1)
            if select.select([process.stderr], [], [], 5)[0]:
                os.read(process.stderr.fileno(), 1)
            else:
                late += 1
    finally:
        ended.set()
        attaching.join()
    return late


def sleeps(pid: int) -> bool:
    """Is it in clock_nanosleep, select or pselect?"""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in ("230", "23", "270")


@pytest.mark.parametrize("version", ["3.8", "3.13"])
def test_death_at_any_step_does_no_harm(version: str, registers: str, harmless: list[subprocess.Popen[str]]) -> None:
    """Killed (-9) before or after each call that touches the target; a later attach works, and the target ends well."""
    harmless.append(start_harmless(version, registers))
    pid = str(harmless[0].pid)

    done = subprocess.run(
        [sys.executable, "-m", "tests.attach_steps", "die", pid], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert int(done.stdout) > 40
    assert run(open_target(int(pid)), "result = 'alive'").result == "alive"


def test_ctrl_z_at_any_step_leaves_the_target_running(start: Start) -> None:
    """It stops us, but never while we hold a thread of the target."""
    pid = str(start(sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(3600)").pid)

    done = subprocess.run(
        [sys.executable, "-m", "tests.attach_steps", "stop", pid], capture_output=True, text=True, check=True, cwd=ROOT
    )
    stopped, harmed = ast.literal_eval(done.stdout)

    assert stopped > 10
    assert harmed == 0


@pytest.mark.parametrize("alone", [True, False])
def test_ctrl_c_at_any_step_leaves_the_target_running(alone: bool, start: Start) -> None:
    program = "import time; print('ready', flush=True); time.sleep(3600)" if alone else TWO_IDLE_THREADS
    target = attach_to(start(sys.executable, "-c", program))

    def interrupt() -> None:
        raise KeyboardInterrupt

    step = interrupted = 0
    while interrupted == step:
        step += 1
        with suppress(KeyboardInterrupt), at_step(step, interrupt):
            run(target, "result = 'alive'")
            continue
        interrupted += 1
        assert not any(traced_or_stopped(thread.tid) for thread in target.threads())

    assert interrupted > 50
    assert run(target, "result = 'alive'").result == "alive"


def traced_or_stopped(tid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        status = Path(f"/proc/{tid}/status").read_text()
        return "TracerPid:\t0\n" not in status or "State:\tt" in status
    return False


def test_a_target_may_be_stopped_and_continued_at_any_time(start: Start) -> None:
    process = start(sys.executable, "-c", TWO_IDLE_THREADS)
    target, ended = attach_to(process), threading.Event()

    def stop_and_continue() -> None:
        while not ended.is_set():
            for number in (signal.SIGSTOP, signal.SIGCONT):
                os.kill(process.pid, number)
                time.sleep(random.random() * 0.002)

    disturbing = threading.Thread(target=stop_and_continue)
    disturbing.start()
    answered = 0
    deadline = time.monotonic() + 20
    try:
        while answered < 5 and time.monotonic() < deadline:
            with suppress(NotPossibleError, NotAnsweredError):  # stopped just then
                answered += run(target, "result = '1'", timeout_s=5).result == "1"
    finally:
        ended.set()
        disturbing.join()

    assert answered > 0
    assert run(target, "result = '1'").result == "1"


def test_a_target_may_end_at_any_time() -> None:
    for _ in range(25):
        life_s = random.random() * 0.04
        with subprocess.Popen([sys.executable, "-S", "-c", f"import time; time.sleep({life_s})"]) as process:
            try:
                target = open_target(process.pid)
                while True:
                    run(target, "result = '1'")
            except PprofpyError as error:
                assert isinstance(error, (TargetError, NotPossibleError)), error  # noqa: PT017 - any of them will do
            assert process.wait(timeout=10) == 0


FORK_AND_EXECUTE = """
import os, sys, threading, time
def fork():
    while True:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
for _ in range(2): threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
threading.Thread(target=fork, daemon=True).start()
*words, left = sys.orig_argv
print(left.replace("15", "ready"), flush=True)
time.sleep(0.03)
if left != "0": os.execv(sys.executable, [*words, str(int(left) - 1)])
"""


def test_a_target_may_fork_and_execute_at_any_time(start: Start) -> None:
    process = start(sys.executable, "-SWignore", "-c", FORK_AND_EXECUTE, "15")
    answered = 0
    while process.poll() is None:
        with suppress(TargetError, NotPossibleError, NotAnsweredError):
            answered += run(open_target(process.pid), "result = '1'", timeout_s=5).result == "1"

    assert process.communicate()[0].split() == [str(left) for left in range(14, -1, -1)]
    assert process.returncode == 0
    assert answered > 0


def test_what_is_meant_for_a_program_never_gets_into_the_next(start: Start) -> None:
    program = """
import os, sys
print("ready", flush=True)
input()
os.execv(sys.executable, [sys.executable, "-c", "print('other', flush=True); input()"])
"""
    process = start(sys.executable, "-c", program, stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout

    with WritableMemory(process.pid) as memory:
        assert memory.read(stack_of(process.pid), 8)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "other\n"
        with pytest.raises(GoneError):
            memory.read(stack_of(process.pid), 8)
        with pytest.raises(GoneError):
            memory.set_word(stack_of(process.pid), 0)


def stack_of(pid: int) -> int:
    return next(mapping.start for mapping in procfs.mappings(pid) if mapping.name == "[stack]")


# -- refused ---------------------------------------------------------------------------------------------------------


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


def control_group(hierarchy: Path, switch: str, request: pytest.FixtureRequest) -> Path:
    """A control group that can be frozen, for the time of a test."""

    def is_removed() -> bool:
        try:
            for pid in (group / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
            group.rmdir()
        except OSError:
            return False
        return True

    if not any(hierarchy.glob("cgroup.procs")):
        pytest.skip(f"{hierarchy} holds no control groups")
    group = hierarchy / f"pprofpy-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made there: {error}")
    request.addfinalizer(lambda: wait_until(is_removed, "the group is empty"))
    if not (group / switch).exists():
        pytest.skip("no control group can be frozen there")
    return group


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


# -- the machine code ------------------------------------------------------------------------------------------------


def test_the_machine_code_is_what_its_source_says() -> None:
    if not shutil.which("as"):
        pytest.skip("needs binutils")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "machine_code.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
