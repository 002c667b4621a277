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


_DIGITS, _KIND_AT, _NAME_AT = 16, 17, 19
"""A line: an address of so many digits, the kind of the symbol, its name (and a tab and its module, if it has one)."""
_FUNCTIONS = np.frombuffer(b"tTwW", np.uint8)


class KernelSymbols:
    """The functions of the running kernel. They are a hundred thousand: a name is cut out when it is asked for.

    Args:
        text: The content of /proc/kallsyms.
        unreadable: Why there is none.

    Attributes:
        notes: For the recording, that there are addresses instead of names, and why; empty where names are known.
    """

    def __init__(self, text: bytes, unreadable: str = "") -> None:
        self._text = text
        self._lines, self._addresses = _functions(text)
        # Without the privilege to see them, all addresses read as 0.
        self._known = bool(len(self._addresses)) and self._addresses[-1] > 0
        self.notes: tuple[str, ...] = ()
        if not self._known:
            self.notes = (f"Kernel names hidden, addresses shown: {unreadable or _why_hidden()}.",)

    def name(self, address: int) -> str:
        """The function that holds `address`; the bare address where that is unknown."""
        index = int(np.searchsorted(self._addresses, np.uint64(address), side="right")) - 1 if self._known else -1
        if index < 0:
            return f"0x{address:x}"
        start = int(self._lines[index])
        line = self._text[start + _NAME_AT : self._text.index(b"\n", start)]
        return line.split(b"\t")[0].decode(errors="replace")


def _functions(text: bytes) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Where the lines of functions begin, and their addresses, rising."""
    characters = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(characters == ord("\n"))
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    starts = starts[ends - starts > _NAME_AT]
    starts = starts[np.isin(characters[starts + _KIND_AT], _FUNCTIONS)]
    addresses = np.zeros(len(starts), np.uint64)
    for place in range(_DIGITS):
        digit = characters[starts + place]
        value = (digit & 0x0F) + 9 * (digit >> 6)  # letters are above 64, where "a" is 1
        addresses = addresses << np.uint64(4) | value.astype(np.uint64)
    order = np.argsort(addresses, kind="stable")
    return starts[order], addresses[order]


@cache
def kernel_symbols() -> KernelSymbols:
    """Those of the running kernel, read once."""
    try:
        return KernelSymbols(_KALLSYMS.read_bytes())
    except OSError as error:
        return KernelSymbols(b"", f"{_KALLSYMS} cannot be read ({error.strerror})")


def _why_hidden() -> str:
    """Source: kernel/ksyms_common.c, kallsyms_show_value: `kptr_restrict` above 1 hides them from everybody."""
    if lacking([Capability.SYSLOG]):
        return f"{Capability.SYSLOG} is missing"
    return "see sysctl kernel.kptr_restrict, which must be 0 or 1"


def without_scheduler(names: Sequence[str]) -> Sequence[str]:
    """A kernel stack, leaf-first, without the scheduler's own frames at its leaf."""
    first = next((index for index, name in enumerate(names) if not _BEFORE_SCHEDULE.match(name)), 0)
    return names[first:]
