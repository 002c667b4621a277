"""Free-threaded builds: what needs their Python stacks refuses them in a clear word; what can do without goes on."""

from __future__ import annotations

from subprocess import Popen

import pytest

from tests.conftest import BURN_AND_REST, CommandLine, Start, beside_others, interpreter

pytestmark = beside_others

CLAIM = f"""
import ctypes, runpy, sys
runtime = ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime")
ctypes.c_uint64.from_address(ctypes.addressof(runtime) + 16).value = 1  # _Py_DebugOffsets.free_threaded
sys.argv = {BURN_AND_REST!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def free(start: Start) -> Popen[str]:
    """A free-threaded Python; where there is none, one that says that it is one."""
    try:
        return start(interpreter("3.13t"), *BURN_AND_REST)
    except pytest.skip.Exception:
        return start(interpreter("3.13"), "-c", CLAIM)


def test_commands_that_need_its_stacks_refuse_it(free: Popen[str], cli: CommandLine) -> None:
    for words in (["cpu", "--engine", "bpf"], ["gil"], ["events", "-e", "page-faults"], ["trace", "--stacks"]):
        done = cli(*words, "--pid", str(free.pid), "-d", "300ms")

        assert done.returncode == 4, (words, done.stderr)
        assert "free-threaded build" in done.stderr


def test_commands_that_can_do_without_go_on_and_say_so(free: Popen[str], cli: CommandLine) -> None:
    for words in (["off-cpu"], ["sched-latency", "--stacks"]):
        done = cli(*words, "--pid", str(free.pid), "-d", "500ms")

        assert done.returncode == 0, (words, done.stderr)
        assert "free-threaded build" in done.stdout + done.stderr


def test_the_cpu_engine_of_choice_is_pyspy_then_and_doctor_knows(free: Popen[str], cli: CommandLine) -> None:
    recorded = cli("cpu", "--pid", str(free.pid), "-d", "500ms")
    examined = cli("doctor", "--pid", str(free.pid))

    assert "engine: py-spy, since" in recorded.stderr
    assert "free-threaded build" in recorded.stderr
    assert "free-threaded build" in examined.stdout
