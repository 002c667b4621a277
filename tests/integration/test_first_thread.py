"""A process outlives its first thread, which has the process's number."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pprofpy.target import open_target, procfs
from tests.conftest import PROGRAMS, Start, beside_others
from tests.cpu import let_run, poll_until, recorder


@beside_others
@pytest.mark.parametrize("how", ["ends", "execs"])
def test_it_is_recorded_on_when_that_ends_or_gives_way_to_another(how: str, start: Start) -> None:
    program = start(sys.executable, str(PROGRAMS / "first_thread.py"), how, stdin=subprocess.PIPE)
    assert program.stdin
    with recorder(1000, children=True) as recording:
        recording.watch(open_target(program.pid))
        let_run(recording, 0.2)
        program.stdin.write("\n")
        program.stdin.flush()
        began_ns = procfs.stat(program.pid).cpu_ns

        poll_until(recording, lambda: procfs.stat(program.pid).cpu_ns > began_ns + 1_000_000_000)
        profile = recording.finish().profile

    names = {frame.function.name for stack, _, _ in profile.samples() for frame in stack}
    assert {"first_thread.before", "first_thread.after"} <= names
