"""Capabilities, and what pprofpy gives up before it reads what others have made.

Only the command line calls `give_up`: a library must not take privileges from the program that uses it. What a process
has given up cannot be regained, by it or by any program that it starts.

Source: man 7 capabilities, man 2 capset, man 2 prctl, man 2 perf_event_open; <linux/capability.h>, <linux/prctl.h>.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Iterable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

from pprofpy.arch import system_call_number
from pprofpy.system import blocking


class Capability(IntEnum):
    """The capabilities that some command of pprofpy can use; the value is the kernel's bit."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    SETGID = 6
    SETUID = 7
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYSLOG = 34
    PERFMON = 38
    BPF = 39
    CHECKPOINT_RESTORE = 40

    def __str__(self) -> str:
        return f"CAP_{self.name}"


READING = frozenset({Capability.DAC_READ_SEARCH, Capability.SETUID, Capability.SETGID})
"""For root: to read the files of the user who called sudo, and to act as the owner of a profile (see rights.py)."""

FILES = READING | frozenset({Capability.DAC_OVERRIDE, Capability.DAC_READ_SEARCH, Capability.FOWNER})
"""For root: to write there, too."""

PROBES = frozenset({Capability.BPF, Capability.PERFMON})
INSPECTION = frozenset({Capability.SYS_PTRACE, Capability.CHECKPOINT_RESTORE, Capability.DAC_READ_SEARCH})
"""For processes of other users: their memory, the files that they have mapped, files that only they can read."""

RECORDING = FILES | PROBES | INSPECTION | {Capability.SYSLOG}
"""What a recording keeps until its end: processes that join it need new probes and are inspected, too."""

PY_SPY = frozenset({Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH})
"""py-spy reads the memory of its target and the files that are mapped there."""

NEEDED = {
    "cpu --engine bpf": (PROBES, frozenset({Capability.SYS_PTRACE})),
    "cpu --engine py-spy": (frozenset[Capability](), frozenset({Capability.SYS_PTRACE})),
    "heap": (frozenset[Capability](), frozenset({Capability.SYS_PTRACE, Capability.DAC_OVERRIDE})),
    "off-cpu": (PROBES, frozenset({Capability.SYS_PTRACE})),
    "gil": (PROBES, frozenset({Capability.SYS_PTRACE})),
    "sched-latency": (PROBES, frozenset({Capability.SYS_PTRACE})),
    "events -e page-faults": (PROBES, frozenset({Capability.SYS_PTRACE})),
    "trace": (PROBES, frozenset({Capability.SYS_PTRACE})),
    "trace -e sched:sched_switch": (PROBES | {Capability.DAC_READ_SEARCH}, frozenset({Capability.SYS_PTRACE})),
}
"""Command -> what it takes to record a process of one's own, and what in addition for a process of another user.

The same table is in docs/security.md; tests/integration/test_capabilities.py tries each row.
"""

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words for each set
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 4, 24, 38
_LAST_CAPABILITY = Path("/proc/sys/kernel/cap_last_cap")
_PERF_LEVEL, _OTHERS_LEVEL = Path("/proc/sys/kernel/perf_event_paranoid"), 3
_EVENT_BYTES, _FD_CLOEXEC = 64, 8
_PRIVATE = 0o077
_MEMORY_SHARE = 2
"""Data made by others may take half of the machine's memory; then it is refused instead of others being killed."""

_libc = ctypes.CDLL(None, use_errno=True)


def lacking(wanted: Iterable[Capability]) -> list[Capability]:
    """Those of `wanted` that are not in effect; CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as in the kernel."""
    effective = _sets()[0]
    if effective >> Capability.SYS_ADMIN & 1:
        wanted = set(wanted) - PROBES
    return sorted(one for one in wanted if not effective >> one & 1)


def in_words(capabilities: Iterable[Capability]) -> str:
    """`CAP_BPF and CAP_PERFMON`, in alphabetical order."""
    *first, last = sorted(map(str, capabilities))
    return f"{', '.join(first)} and {last}" if first else last


def permitted() -> int:
    """The capabilities that this process holds, as a bit mask."""
    return _sets()[1]


def give_up(keep: Iterable[Capability] = ()) -> None:
    """Keep only some capabilities, for good, and limit what data made by others can do to this process.

    Afterwards no program that is started can have more (no_new_privs), memory is limited to half of the machine's,
    files are created for their owner alone, and no core is dumped, which would hold the memory of others.

    Args:
        keep: Kept where this process holds them. CAP_SYS_ADMIN is kept, too, where CAP_BPF or CAP_PERFMON is asked for
            and does not do: a process that was given that one in their place (as was usual before Linux 5.8), a
            kernel that asks for it (see `perf_takes_administrator`).
    """
    blocking.dismiss_readers()
    held, kept = permitted(), _mask(keep)
    if kept & _mask(PROBES) & ~held or (kept & _mask([Capability.PERFMON]) and perf_takes_administrator()):
        kept |= _mask([Capability.SYS_ADMIN])
    _limit(is_privileged=bool(held))
    keep_only(held & kept)


def perf_level() -> int:
    """What kernel.perf_event_paranoid says; -1 where there is no such setting."""
    try:
        return int(_PERF_LEVEL.read_text())
    except (OSError, ValueError):
        return -1


def perf_takes_administrator() -> bool:
    """Does this kernel let only CAP_SYS_ADMIN watch events, CAP_PERFMON or not? It is tried without the former.

    Those of Ubuntu and some of Debian's do, above a level that Linux itself does not have; it is their default.
    """
    if perf_level() < _OTHERS_LEVEL:
        return False
    effective, held, inheritable = _sets()
    _set(effective & ~_mask([Capability.SYS_ADMIN]), held, inheritable)
    try:
        return not _may_open_event()
    finally:
        _set(effective, held, inheritable)


def _may_open_event() -> bool:
    """Try an event of ours that never happens (PERF_COUNT_SW_DUMMY)."""
    attributes = struct.pack("<IIQ", 1, _EVENT_BYTES, 9).ljust(_EVENT_BYTES, b"\0")
    arguments = [ctypes.c_char_p(attributes), *map(ctypes.c_long, (0, -1, -1, _FD_CLOEXEC))]
    descriptor = _libc.syscall(ctypes.c_long(system_call_number("perf_event_open")), *arguments)
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor >= 0)


def keep_only(mask: int) -> None:
    """Reduce all sets of capabilities to `mask`; may be called between fork and exec.

    Raises:
        OSError: `mask` holds what this process does not.
    """
    for bit in range(_last_capability() + 1):
        if not mask >> bit & 1:
            with suppress(OSError):  # without CAP_SETPCAP; no_new_privs suffices
                _prctl(_PR_CAPBSET_DROP, bit)
    effective, held, inheritable = _sets()
    _set(effective & mask, held & mask, inheritable & mask)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def held_of(capabilities: Iterable[Capability]) -> int:
    """Those of `capabilities` that this process holds, as a bit mask for `keep_only`."""
    return permitted() & _mask(capabilities)


def _limit(*, is_privileged: bool) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if is_privileged:
        _prctl(_PR_SET_DUMPABLE, 0)  # core(5): a program that takes cores by a pipe is not bound by the limit
    os.umask(_PRIVATE)
    most = _mapped_bytes() + os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MEMORY_SHARE
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or soft > most:
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _mapped_bytes() -> int:
    """How much address space this process has already (libraries take more with each CPU); 0 without /proc."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _mask(capabilities: Iterable[Capability]) -> int:
    return sum(1 << one for one in set(capabilities))


def _last_capability() -> int:
    try:
        return int(_LAST_CAPABILITY.read_text())
    except (OSError, ValueError):
        return 63


def _sets() -> tuple[int, int, int]:
    """Effective, permitted and inheritable."""
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(struct.pack("<Ii", _VERSION, 0), data))
    low, high = struct.unpack("<3I", data.raw[:12]), struct.unpack("<3I", data.raw[12:24])
    return low[0] | high[0] << 32, low[1] | high[1] << 32, low[2] | high[2] << 32


def _set(*sets: int) -> None:
    words = [one & 0xFFFFFFFF for one in sets] + [one >> 32 for one in sets]
    _check(_libc.capset(struct.pack("<Ii", _VERSION, 0), struct.pack("<6I", *words)))


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3))


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
