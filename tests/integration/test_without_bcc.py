"""Where neither bcc nor a compiler is installed, every command works: programs came with the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pprofpy
from pprofpy.collectors import programs
from pprofpy.collectors.kernel.shipped import is_any_shipped
from tests.conftest import PATIENCE_S, PROGRAMS, Start

pytestmark = pytest.mark.ebpf(needs="probes")

SCRIPT = Path(pprofpy.__file__).parents[1] / "scripts" / "without_bcc.sh"
COMMANDS = {
    "cpu": "cpu --engine bpf",
    "cpu --native": "cpu --engine bpf --native -K",
    "cpu --idle": "cpu --engine bpf --idle",
    "off-cpu": "off-cpu",
    "gil": "gil",
    "sched-latency": "sched-latency --stacks --threshold 1ms",
    "events": "events -e page-faults",
    "trace": "trace -e getppid --stacks",
    "trace -s": "trace -s",
}


def without_bcc(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run pprofpy where they are hidden, with an empty cache."""
    places = {"PPROFPY_DIR": str(tmp_path / "profiles"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return subprocess.run(
        [str(SCRIPT), sys.executable, "-m", "pprofpy", *words], capture_output=True, text=True, check=False,
        env={**os.environ, **places}, timeout=PATIENCE_S,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _can_be_hidden() -> None:
    if not shutil.which("unshare"):
        pytest.skip("there is no unshare here: apt-get install util-linux")
    if not is_any_shipped():
        pytest.skip("no programs were compiled into this package: make setup, as root")


@pytest.mark.parametrize("command", COMMANDS)
def test_it_records(command: str, start: Start, tmp_path: Path) -> None:
    program = start(sys.executable, str(PROGRAMS / "busy.py"))

    done = without_bcc(tmp_path, *COMMANDS[command].split(), "-d", "0.5s", "--pid", str(program.pid))

    assert done.returncode == 0, done.stderr
    assert "bcc" not in done.stderr
    assert any(word in done.stdout for word in ("busy", "getppid", "Thread", "MainThread")), done.stdout


def test_doctor_says_that_bcc_is_not_needed(tmp_path: Path) -> None:
    assert programs.origin() in without_bcc(tmp_path, "doctor").stdout
