"""What a process uses: as the kernel counts it, whatever its threads are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from pprofpy.target import usage
from pprofpy.target.usage import Usage, ancestors
from tests.conftest import Start

FORGER = """
import ctypes, sys, time
ctypes.CDLL(None).prctl(15, b") R 1 1 1 9 9 9", 0, 0, 0)
burned = bytearray(50 << 20)
kept = [open("/dev/null") for _ in range(20)]
end = time.process_time() + 0.3
while time.process_time() < end: pass
print("ready", flush=True)
time.sleep(1000)
"""


def test_it_is_what_the_kernel_counts(start: Start) -> None:
    program = start(sys.executable, "-c", FORGER)

    found = usage.usage(program.pid)

    assert found.cpu_ns >= 290_000_000
    assert 50 << 20 <= found.rss_bytes < 200 << 20
    assert found.descriptor_count == len(list(Path(f"/proc/{program.pid}/fd").iterdir())) >= 23
    assert str(found).endswith(f" {found.descriptor_count} descriptors")


def test_nothing_is_known_of_what_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "print()"], stdout=subprocess.DEVNULL) as process:
        process.wait()

    assert usage.usage(process.pid) == Usage()
    assert str(Usage()) == ""


def test_what_may_not_be_read_is_left_out() -> None:
    assert "descriptors" not in str(Usage(1_500_000_000, 1 << 20))


def test_who_started_us_the_nearest_first() -> None:
    code = "import os; from pprofpy.target.usage import ancestors; print(os.getpid(), *ancestors())"
    done = subprocess.run(
        ["sh", "-c", f'{sys.executable} -c "{code}"; true'], capture_output=True, text=True, check=True
    )

    own, *found = map(int, done.stdout.split())

    assert found[-len(ancestors()) :] == ancestors()
    assert os.getpid() in found[:2]  # with a shell between, unless it has made way for the command
    assert own not in found


def test_psutil_takes_users_from_names_of_threads_which_is_why_we_do_not(start: Start) -> None:
    """If this fails, psutil reads as we do, and could be asked for more."""
    program = start(sys.executable, "-c", FORGER.replace(") R 1 1 1 9 9 9", r"Uid:\t7\t7\t7"))

    assert psutil.Process(program.pid).uids().effective == 7
