"""How often, and for how long, a CPU quota has kept a process from running: its control group's, or one's above.

The kernel's scheduler says nothing of it: a throttled thread waits for a CPU like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pprofpy.target import procfs

ROOT = Path("/sys/fs/cgroup")
_NS_PER_US = 1000


@dataclass(frozen=True, slots=True)
class Throttling:
    """What one control group has done to all its processes together, since it was made.

    Attributes:
        count: In how many periods it ran out of its quota.
        total_ns: How long its threads had to wait then; those of each CPU add up.
    """

    count: int
    total_ns: int


def quotas(pid: int) -> dict[Path, Throttling]:
    """By folder, what was done so far by each control group above a process that has a quota; empty if unknown.

    Source: cgroup-v2.rst (cpu.stat) and scheduler/sched-bwc.rst in the kernel's documentation.
    """
    with suppress(OSError):
        folders = [folder for one in procfs.control_groups(pid) for folder in _folders(*one)]
        return {folder: one for folder in folders if (one := throttling(folder))}
    return {}


def throttling(folder: Path) -> Throttling | None:
    """What a control group has done so far; None without a quota, or if it is gone."""
    with suppress(OSError, ValueError):
        numbers = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
        if "nr_throttled" in numbers:
            in_ns = numbers.get("throttled_time") or int(numbers.get("throttled_usec", 0)) * _NS_PER_US
            return Throttling(int(numbers["nr_throttled"]), int(in_ns))
    return None


def _folders(controllers: str, group: str) -> Iterator[Path]:
    """Those of a group and of all above it; a group outside of our own namespace (`/../x`) has none."""
    names = controllers.split(",") if controllers else []
    if ".." in PurePosixPath(group).parts or (names and "cpu" not in names):
        return
    for root in (ROOT / controllers, ROOT / "cpu") if names else (ROOT, ROOT / "unified"):
        folder = root / group.lstrip("/")
        yield from (folder, *(above for above in folder.parents if above.is_relative_to(root)))
