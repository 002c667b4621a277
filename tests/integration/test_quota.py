"""A quota that the kernel really enforces is told as it is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pprofpy.session.circumstances import Circumstances
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, Start, wait_until
from tests.control_groups import control_group


@pytest.mark.parametrize(
    ("hierarchy", "switch", "quota"),
    [("", "cpu.max", "1000 10000"), ("unified", "cpu.max", "1000 10000"), ("cpu", "cpu.cfs_quota_us", "1000")],
)
def test_a_tenth_of_a_cpu_is_told_with_its_group(
    hierarchy: str, switch: str, quota: str, start: Start, request: pytest.FixtureRequest
) -> None:
    group = control_group(Path("/sys/fs/cgroup", hierarchy), switch, request)
    target = open_target(start(sys.executable, str(PROGRAMS / "burn.py")).pid)
    (group / switch).write_text(quota)
    (group / "cgroup.procs").write_text(str(target.pid))
    circumstances = Circumstances([target])
    before = throttled(group)

    wait_until(lambda: throttled(group) >= before + 3, "it was throttled")
    (note,) = circumstances.notes()

    words = rf"A CPU quota \(of {group}\) throttled its processes (\d+) times, ([\d.]+) m?s on all CPUs together: .*"
    told = re.fullmatch(words, note)
    assert told, note
    assert 3 <= int(told[1]) <= throttled(group) - before
    assert float(told[2]) > 0


def throttled(group: Path) -> int:
    """How often the kernel has done it so far."""
    (count,) = re.findall(r"nr_throttled (\d+)", (group / "cpu.stat").read_text())
    return int(count)
