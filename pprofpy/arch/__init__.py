"""What differs between x86-64 and arm64, and nothing else.

All that recorders in the kernel need is known of both; what attaching to a process needs (registers, machine code), of
x86-64 only. What must know more calls `require` or `require_attaching`, and is refused elsewhere; nothing is guessed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from pprofpy.arch import arm64, x86_64
from pprofpy.arch.machine import Machine
from pprofpy.errors import NotPossibleError

_ELSEWHERE = "py-spy based commands work elsewhere"
MACHINES = {one.name: one for one in (x86_64.MACHINE, arm64.MACHINE)}
"""By what the kernel calls them."""

FIRST = x86_64.MACHINE.name
"""What pprofpy knew before there were others."""


def machine() -> str:
    """What the kernel calls this machine: `x86_64`, `aarch64`."""
    return os.uname().machine


def here() -> Machine:
    """What is known of this machine. On one that is not known, x86-64: recorders are refused there (`require`)."""
    return of(machine())


def of(name: str) -> Machine:
    """What is known of a machine, by its name; x86-64 stands for those that are not known."""
    return MACHINES.get(name, x86_64.MACHINE)


def is_known() -> bool:
    """Do recorders in the kernel know this machine's registers and system calls?"""
    return machine() in MACHINES


def require(what: str) -> None:
    """Refuse machines of whose registers and system calls nothing is known.

    Args:
        what: What needs them, with its verb: `kernel probes work`.

    Raises:
        NotPossibleError: This is such a machine.
    """
    if not is_known():
        known = " and ".join(one.title for one in MACHINES.values())
        raise NotPossibleError(f"{what} on {known} only, this is {machine()}", _ELSEWHERE)


def kernel_defines(kind: str = "") -> Mapping[str, int]:
    """What programs in the kernel must know of a kind of machine, as defines.

    Args:
        kind: As `machine` has it; by default this one's.

    Raises:
        NotPossibleError: Nothing is known of such machines.
    """
    if (kind or machine()) not in MACHINES:
        raise NotPossibleError(f"kernel probes do not work on {kind or machine()}", _ELSEWHERE)
    return MACHINES[kind or machine()].kernel_defines()


def can_attach() -> bool:
    """Is there machine code with which a process of this machine can be entered?"""
    return machine() == FIRST


def require_attaching() -> None:
    """Refuse machines on which processes cannot be entered.

    Raises:
        NotPossibleError: This is such a machine.
    """
    if not can_attach():
        works = (
            "cpu, off-cpu, gil, sched-latency, trace and events work" if is_known() else "py-spy based commands work"
        )
        raise NotPossibleError(
            "heap needs to run code in the process, which pprofpy does on x86-64 only so far",
            f"on {machine()}, {works}",
        )


@cache
def system_call_number(name: str) -> int:
    """The number of a system call on this machine.

    Args:
        name: As the kernel calls it: `perf_event_open`.

    Raises:
        NotPossibleError: It is not known here.
    """
    known = MACHINES.get(machine())
    number = known.system_call_number(name) if known else None
    if number is None:
        raise NotPossibleError(f"the number of the system call {name} is not known on {machine()}")
    return number
