"""Names for kernel addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pprofpy.system.privileges import Capability, lacking

_KALLSYMS = Path("/proc/kallsyms")
_BEFORE_SCHEDULE = re.compile(r"_*(schedule|io_schedule|preempt_schedule|cond_resched)(_|$)|_*traceiter_|bpf_")
"""The leaf frames that every switch has in common; what stands below them tells why."""


class KernelSymbols:
    """The functions of the running kernel.

    Args:
        text: The content of /proc/kallsyms: address, type, name, and the module where there is one.
        unreadable: Why there is none.

    Attributes:
        notes: For the recording, that there are addresses instead of names, and why; empty where names are known.
    """

    def __init__(self, text: str, unreadable: str = "") -> None:
        rows = [line.split(None, 2) for line in text.splitlines()]
        functions = sorted((int(row[0], 16), row[2]) for row in rows if len(row) == 3 and row[1] in "tTwW")
        self._addresses: NDArray[np.uint64] = np.array([address for address, _ in functions], np.uint64)
        self._names = [name.split("\t")[0] for _, name in functions]
        # Without the privilege to see them, all addresses read as 0.
        self._known = bool(len(functions)) and functions[-1][0] > 0
        self.notes: tuple[str, ...] = ()
        if not self._known:
            self.notes = (f"Kernel names hidden, addresses shown: {unreadable or _why_hidden()}.",)

    def name(self, address: int) -> str:
        """The function that holds `address`; the bare address where that is unknown."""
        if not self._known:
            return f"0x{address:x}"
        index = int(np.searchsorted(self._addresses, np.uint64(address), side="right")) - 1
        return self._names[index] if index >= 0 else f"0x{address:x}"


@cache
def kernel_symbols() -> KernelSymbols:
    """Those of the running kernel, read once."""
    try:
        return KernelSymbols(_KALLSYMS.read_text(errors="replace"))
    except OSError as error:
        return KernelSymbols("", f"{_KALLSYMS} cannot be read ({error.strerror})")


def _why_hidden() -> str:
    """Source: kernel/ksyms_common.c, kallsyms_show_value: `kptr_restrict` above 1 hides them from everybody."""
    if lacking([Capability.SYSLOG]):
        return f"{Capability.SYSLOG} is missing"
    return "see sysctl kernel.kptr_restrict, which must be 0 or 1"


def without_scheduler(names: Sequence[str]) -> Sequence[str]:
    """A kernel stack, leaf-first, without the scheduler's own frames at its leaf."""
    first = next((index for index, name in enumerate(names) if not _BEFORE_SCHEDULE.match(name)), 0)
    return names[first:]
