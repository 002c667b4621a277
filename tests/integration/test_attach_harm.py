"""Attaching changes nothing in the target, whatever happens to it or to us meanwhile."""

from __future__ import annotations

import ast
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pprofpy.collectors.attach import NotAnsweredError, run
from pprofpy.collectors.attach.ptrace import GoneError, WritableMemory
from pprofpy.errors import NotPossibleError, PprofpyError, TargetError
from pprofpy.target import open_target, procfs
from tests.attach_steps import at_step
from tests.attaching import OLD_AND_NEW, ROOT, TWO_IDLE_THREADS, attach_to, traced_or_stopped
from tests.conftest import PROGRAMS, Start, interpreter, wait_until


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
