"""Is a process stopped, or frozen by its control group? Whoever attaches to it fails, or waits until it is thawed."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from pprofpy.errors import NotPossibleError
from pprofpy.target import procfs
from pprofpy.target.process import Target

_FREEZERS = (
    ("", "/sys/fs/cgroup", "cgroup.events"),
    ("", "/sys/fs/cgroup/unified", "cgroup.events"),
    ("freezer", "/sys/fs/cgroup/freezer", "freezer.state"),
)
"""Controllers as in /proc/PID/cgroup, where their hierarchy is mounted, and the file in a group that says whether..."""
_FROZEN = re.compile("frozen 1|FREEZING|FROZEN")


def refuse_stopped(target: Target) -> None:
    """Raise if the target is stopped by a signal.

    Raises:
        NotPossibleError: It is.
    """
    if target.state() == "T":
        raise NotPossibleError(f"{target} is stopped (state T)", f"let it go on first: kill -CONT {target.pid}")


def refuse_frozen(target: Target) -> None:
    """Raise if the target is frozen.

    Raises:
        NotPossibleError: It is.
    """
    if frozen := frozen_by(target.pid):
        raise NotPossibleError(f"{target} is frozen (by {frozen})", "thaw it first")


def frozen_by(pid: int) -> str:
    """The file that says that the process's control group is frozen; empty if there is none, or it has ended.

    Source: cgroup-v1/freezer-subsystem.rst and cgroup-v2.rst in the kernel's admin guide.
    """
    groups: list[tuple[str, str]] = []
    with suppress(OSError):
        groups = procfs.control_groups(pid)
    for controllers, group in groups:
        for file in (Path(root + group, name) for kind, root, name in _FREEZERS if kind == controllers):
            with suppress(OSError):
                if _FROZEN.search(file.read_text()):
                    return str(file)
    return ""
