"""Attaching programs to perf events, by the kernel's own interface: bcc knows no cookies.

Source: man 2 perf_event_open; man 2 bpf, BPF_LINK_CREATE (Linux 5.15); <linux/perf_event.h>, <linux/bpf.h>.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

from pprofpy.arch import system_call_number
from pprofpy.collectors.kernel import syscall as kernel
from pprofpy.collectors.kernel.cpus import online_cpus
from pprofpy.collectors.kernel.refusals import refused
from pprofpy.errors import NotPossibleError
from pprofpy.system import privileges
from pprofpy.target import with_sudo

_ATTACHING = "run a program at its events"
_ATTR_BYTES = 64
_FLAG_DISABLED, _FLAG_EXCLUDE_IDLE = 1, 1 << 7
_FD_CLOEXEC = 8
_ATTACH_PERF_EVENT = 41
_TYPE_SOFTWARE, _CPU_CLOCK = 1, 0
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408


def perf_event(kind: int, config: int) -> int:
    """A file descriptor for an event that samples nothing: it is there for a program to be attached to.

    A program at a tracepoint runs on every CPU, whichever one its perf event was opened on.

    Args:
        kind: `PERF_TYPE_*`.
        config: For a tracepoint: its number.
    """
    attributes = struct.pack("<IIQQQQQ", kind, _ATTR_BYTES, config, 0, 0, 0, _FLAG_DISABLED)
    return _open(attributes, online_cpus()[0])


def link_perf_event(program: int, event: int, cookie: int) -> int:
    """Attach a program until the returned file descriptor is closed.

    Raises:
        NotPossibleError: The kernel does not; it may be too old.
    """
    try:
        return kernel.create_link(program, event, _ATTACH_PERF_EVENT, cookie)
    except OSError as error:
        raise refused(_ATTACHING, error) from error


def clock_event(cpu: int, period_ns: int) -> int:
    """A file descriptor for an event that occurs every `period_ns` on one CPU; it does not run yet.

    A CPU that has nothing to do is left alone: the kernel, which lets an event occur only so many times between two of
    its own ticks, has none of those there, and would hold it back for as long as the next thread has run a while.

    Source: PERF_COUNT_SW_CPU_CLOCK; a timer, so that it works in virtual machines, too.
    """
    return software_event(cpu, _CPU_CLOCK, period_ns, _FLAG_EXCLUDE_IDLE)


def software_event(cpu: int, number: int, period: int, flags: int = 0) -> int:
    """A file descriptor for an event that the kernel itself raises; it does not run yet.

    Args:
        cpu: Where.
        number: `PERF_COUNT_SW_*`.
        period: Every how many occurrences (or nanoseconds) a program is to run.
        flags: Of `struct perf_event_attr`, from `disabled` on.
    """
    attributes = struct.pack("<IIQQQQQ", _TYPE_SOFTWARE, _ATTR_BYTES, number, period, 0, 0, _FLAG_DISABLED | flags)
    return _open(attributes, cpu)


def run_at_event(program: int, event: int) -> None:
    """Run a program whenever the event occurs, and start the event."""
    _control(event, _IOC_SET_BPF, program)
    start_event(event)


def start_event(event: int) -> None:
    """Enable an event (PERF_EVENT_IOC_ENABLE)."""
    _control(event, _IOC_ENABLE, 0)


def _control(event: int, request: int, argument: int) -> None:
    try:
        fcntl.ioctl(event, request, argument)
    except OSError as error:
        raise refused(_ATTACHING, error) from error


def _open(attributes: bytes, cpu: int) -> int:
    """An event on a CPU, of all processes; returns its file descriptor."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = system_call_number("perf_event_open")
    words = [ctypes.c_char_p(attributes.ljust(_ATTR_BYTES, b"\0")), *map(ctypes.c_long, (-1, cpu, -1, _FD_CLOEXEC))]
    result: int = libc.syscall(ctypes.c_long(number), *words)
    if result >= 0:
        return result
    code = ctypes.get_errno()
    if code == errno.EACCES and privileges.perf_takes_administrator():
        raise NotPossibleError(
            "the kernel does not let us watch its events: kernel.perf_event_paranoid is "
            f"{privileges.perf_level()}, and then this kernel asks for CAP_SYS_ADMIN",
            f"run {with_sudo()}; or set it lower: sudo sysctl -w kernel.perf_event_paranoid=2",
        )
    raise refused("let us watch its events", OSError(code, os.strerror(code)))
