"""Which thread may be borrowed for a moment, and in which state.

A borrowed thread calls pthread_create, so it must hold no lock that this takes: malloc's, the loader's, the C library's
own. Two states are known to be free of them:

- *parked*: it waits in a system call that no allocator or loader waits in, and the wait was broken off without effect,
  so that the kernel repeats it. Futexes count only as FUTEX_WAIT_BITSET (semaphores, condition variables, joins: how
  Python waits), since glibc's own locks use FUTEX_WAIT.
- *running Python*: the innermost function is the interpreter's. Nothing that holds the C library's locks calls it.

Parked threads other than the main one come first: signals to a process go to the main thread while that is free, and
only there does Python react to them. Among them, those whose wait can simply be begun anew come first, and the oldest,
which rarely change what they do.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from pprofpy.arch import system_call_number
from pprofpy.arch.x86_64.registers import Registers
from pprofpy.target import procfs
from pprofpy.target.procfs import MappedArea

EINTR = 4
REPEATED = {512, 513, 514, 516}
"""ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK: the kernel will repeat the call."""

_FUTEX_COMMAND, _FUTEX_WAIT_BITSET = 0x7F, 9
_ABSOLUTE, _FOR_EVER = 1, (1 << 32) - 1
_WAITS = (
    "read write poll readv writev select pause nanosleep connect accept sendto recvfrom sendmsg recvmsg wait4 fcntl "
    "flock rt_sigtimedwait futex restart_syscall clock_nanosleep epoll_wait waitid pselect6 ppoll epoll_pwait accept4 "
    "epoll_pwait2"
)


@cache
def _waits() -> dict[int, str]:
    """The calls that a thread may be parked in, by number."""
    return {system_call_number(name): name for name in _WAITS.split()}


class Borrowable(StrEnum):
    """The two states in which a thread may be borrowed."""

    PARKED = "parked"
    RUNNING = "running Python"


@dataclass(frozen=True, slots=True)
class ProcessParts:
    """Where the parts of a process lie that tell a thread's state.

    Attributes:
        mappings: All of them, by address.
        interpreter: The ranges of the interpreter's own code.
        room_bytes: What the machine code needs on a stack, and what a signal needs that comes then.
    """

    mappings: list[MappedArea]
    interpreter: tuple[tuple[int, int], ...]
    room_bytes: int

    def is_interpreter(self, address: int) -> bool:
        """Does the interpreter's own code lie there?"""
        return any(start <= address < end for start, end in self.interpreter)

    def has_room(self, stack_pointer: int) -> bool:
        """Is there enough stack below? A stack that is not known yet has none."""
        at = bisect.bisect_right(self.mappings, stack_pointer, key=lambda mapping: mapping.start) - 1
        mapping = self.mappings[at]
        low = stack_pointer - self.room_bytes
        return mapping.start <= low and stack_pointer < mapping.end and mapping.permissions.startswith("rw")


def candidates(pid: int, layout: ProcessParts) -> Iterator[int]:
    """The tids that look as if they could be borrowed, best first. Only a look; what is seen at the stop counts."""
    running, main, relative = [], [], []
    for tid in procfs.tids(pid):
        try:
            call = procfs.system_call(pid, tid)
        except OSError:  # it has ended
            continue
        if call is None or call.number < 0:
            running.append(tid)
            continue
        number, (_, second, third, *_) = call.number, call.arguments
        if is_wait(number, second) and layout.has_room(call.stack_pointer):
            if tid == pid:
                main.append(tid)
            elif can_begin_anew(number, second, third):
                yield tid
            else:
                relative.append(tid)
    yield from relative
    yield from main
    yield from running


def state_of(registers: Registers, layout: ProcessParts, handles_signal: bool) -> Borrowable | None:
    """The state of a thread that stands still, if it may be borrowed.

    Args:
        registers: Its registers.
        layout: The process.
        handles_signal: It seems to be in a signal handler: it blocks a signal that the program catches.
    """
    if not registers.is_64_bit or not layout.has_room(registers.stack_pointer):
        return None
    number = registers.system_call
    if number < 0:
        return (
            Borrowable.RUNNING if layout.is_interpreter(registers.instruction_pointer) and not handles_signal else None
        )
    is_parked = is_broken_off(registers) and is_wait(number, registers.arguments[0])
    return Borrowable.PARKED if is_parked else None


def is_broken_off(registers: Registers) -> bool:
    """Does the thread wait in a system call, which was broken off to stop it?"""
    return registers.system_call >= 0 and -registers.result in REPEATED | {EINTR}


def can_begin_anew(number: int, second_argument: int, third_argument: int) -> bool:
    """Does the same call with the same arguments end when the first would have?

    The kernel writes back what is left of a select's time; a futex's and an absolute sleep's end is a point in time. A
    wait with a time limit that was broken off once before (restart_syscall) only the kernel can go on with.
    """
    match _waits().get(number):
        case "poll":
            return third_argument & _FOR_EVER == _FOR_EVER
        case "nanosleep" | "restart_syscall":
            return False
        case "clock_nanosleep":
            return bool(second_argument & _ABSOLUTE)
        case _:
            return True


def is_wait(number: int, second_argument: int) -> bool:
    """Is it one of the calls that a thread may be parked in?"""
    name = _waits().get(number)
    if name == "futex":
        return second_argument & _FUTEX_COMMAND == _FUTEX_WAIT_BITSET
    return name is not None
