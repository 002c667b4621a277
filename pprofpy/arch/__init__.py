"""What differs between x86-64 and arm64, and nothing else.

`x86_64` has all that recorders need. Of arm64 only is known what looking at recordings needs: what must know more calls
`require`, and is refused there; nothing is guessed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from pprofpy.arch import arm64, x86_64
from pprofpy.errors import NotPossibleError

_ELSEWHERE = "py-spy based commands work elsewhere"
_KERNEL_DEFINES_OF = {x86_64.MACHINE: x86_64.kernel_defines}
_NUMBER_OF = {x86_64.MACHINE: x86_64.system_call_number, arm64.MACHINE: arm64.system_call_number}


def machine() -> str:
    """What the kernel calls this machine: `x86_64`, `aarch64`."""
    return os.uname().machine


def is_known() -> bool:
    """Do recorders know this machine's registers, system calls and code?"""
    return machine() == x86_64.MACHINE


def require(what: str) -> None:
    """Refuse machines of whose registers, system calls and code nothing is known.

    Args:
        what: What needs them, with its verb: `kernel probes work`.

    Raises:
        NotPossibleError: This is such a machine.
    """
    if not is_known():
        raise NotPossibleError(f"{what} on x86-64 only, this is {machine()}", _ELSEWHERE)


def kinds() -> tuple[str, ...]:
    """Those machines whose kernels pprofpy's programs run in."""
    return tuple(_KERNEL_DEFINES_OF)


def kernel_defines(kind: str = "") -> Mapping[str, int]:
    """What programs in the kernel must know of a kind of machine, as defines.

    Args:
        kind: As `machine` has it; by default this one's.

    Raises:
        NotPossibleError: Nothing is known of such machines.
    """
    if (kind or machine()) not in _KERNEL_DEFINES_OF:
        raise NotPossibleError(f"kernel probes work on x86-64 only, this is {kind or machine()}", _ELSEWHERE)
    return _KERNEL_DEFINES_OF[kind or machine()]()


@cache
def system_call_number(name: str) -> int:
    """The number of a system call on this machine.

    Args:
        name: As the kernel calls it: `perf_event_open`.

    Raises:
        NotPossibleError: It is not known here.
    """
    number = _NUMBER_OF[machine()](name) if machine() in _NUMBER_OF else None
    if number is None:
        raise NotPossibleError(f"the number of the system call {name} is not known on {machine()}")
    return number
