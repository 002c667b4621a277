"""Control groups of the kernel, which only root may make."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.conftest import wait_until


def control_group(hierarchy: Path, switch: str, request: pytest.FixtureRequest) -> Path:
    """A group of a hierarchy, for the time of a test; skips where there is none with such a switch."""

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
        pytest.skip(f"no control group has {switch} there")
    return group
