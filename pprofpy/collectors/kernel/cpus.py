"""Which CPUs there are.

Source: Linux, Documentation/admin-guide/cputopology.rst.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pprofpy.errors import NotPossibleError, exhausted

_FOLDER = Path("/sys/devices/system/cpu")


def online_cpus() -> list[int]:
    """The CPUs that are switched on.

    Raises:
        NotPossibleError: The kernel does not tell.
    """
    return _listed("online")


@cache
def possible_cpus() -> int:
    """How many copies a per-CPU map holds.

    Raises:
        NotPossibleError: The kernel does not tell.
    """
    return _listed("possible")[-1] + 1


def _listed(name: str) -> list[int]:
    """The CPUs in a file such as `0-3,8`, ascending."""
    cpus: list[int] = []
    try:
        for part in (_FOLDER / name).read_text().strip().split(","):
            first, _, last = part.partition("-")
            cpus += range(int(first), int(last or first) + 1)
    except OSError as error:
        raise exhausted(error.errno or 0) or NotPossibleError(
            f"the kernel's list of CPUs cannot be read ({_FOLDER / name}: {error.strerror})",
            "mount sysfs: mount -t sysfs sysfs /sys",
        ) from error
    return cpus
