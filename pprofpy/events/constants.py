"""Names of the bits and numbers that system calls take and return.

Source: linux/include/uapi: asm-generic/fcntl.h, mman-common.h, linux/sched.h, futex.h, time.h, mount.h, errno.h.
"""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable

from pprofpy.arch import MACHINES

_FLAG_SETS = {
    **{kind: text for one in MACHINES.values() for kind, text in one.flags.items()},
    "prot": "1 PROT_READ 2 PROT_WRITE 4 PROT_EXEC 0x1000000 PROT_GROWSDOWN 0x2000000 PROT_GROWSUP",
    "at": "0x100 AT_SYMLINK_NOFOLLOW 0x200 AT_REMOVEDIR 0x400 AT_SYMLINK_FOLLOW 0x800 AT_NO_AUTOMOUNT "
    "0x1000 AT_EMPTY_PATH 0x2000 AT_STATX_FORCE_SYNC 0x4000 AT_STATX_DONT_SYNC 0x8000 AT_RECURSIVE",
    "access": "4 R_OK 2 W_OK 1 X_OK",
    "clone": "0x100 CLONE_VM 0x200 CLONE_FS 0x400 CLONE_FILES 0x800 CLONE_SIGHAND 0x1000 CLONE_PIDFD "
    "0x2000 CLONE_PTRACE 0x4000 CLONE_VFORK 0x8000 CLONE_PARENT 0x10000 CLONE_THREAD 0x20000 CLONE_NEWNS "
    "0x40000 CLONE_SYSVSEM 0x80000 CLONE_SETTLS 0x100000 CLONE_PARENT_SETTID 0x200000 CLONE_CHILD_CLEARTID "
    "0x1000000 CLONE_CHILD_SETTID 0x2000000 CLONE_NEWCGROUP 0x4000000 CLONE_NEWUTS 0x8000000 CLONE_NEWIPC "
    "0x10000000 CLONE_NEWUSER 0x20000000 CLONE_NEWPID 0x40000000 CLONE_NEWNET 0x80000000 CLONE_IO",
    "mount": "1 MS_RDONLY 2 MS_NOSUID 4 MS_NODEV 8 MS_NOEXEC 0x10 MS_SYNCHRONOUS 0x20 MS_REMOUNT 0x400 MS_NOATIME "
    "0x1000 MS_BIND 0x2000 MS_MOVE 0x4000 MS_REC 0x20000 MS_UNBINDABLE 0x40000 MS_PRIVATE 0x80000 MS_SLAVE "
    "0x100000 MS_SHARED",
}
_ZERO = {"prot": "PROT_NONE", "access": "F_OK"}

_NUMBER_SETS = {
    "whence": "0 SEEK_SET 1 SEEK_CUR 2 SEEK_END 3 SEEK_DATA 4 SEEK_HOLE",
    "madvise": "0 MADV_NORMAL 1 MADV_RANDOM 2 MADV_SEQUENTIAL 3 MADV_WILLNEED 4 MADV_DONTNEED 8 MADV_FREE "
    "9 MADV_REMOVE 10 MADV_DONTFORK 11 MADV_DOFORK 12 MADV_MERGEABLE 13 MADV_UNMERGEABLE 14 MADV_HUGEPAGE "
    "15 MADV_NOHUGEPAGE 16 MADV_DONTDUMP 17 MADV_DODUMP 18 MADV_WIPEONFORK 19 MADV_KEEPONFORK 20 MADV_COLD "
    "21 MADV_PAGEOUT 22 MADV_POPULATE_READ 23 MADV_POPULATE_WRITE 25 MADV_COLLAPSE",
    "family": "0 AF_UNSPEC 1 AF_UNIX 2 AF_INET 10 AF_INET6 16 AF_NETLINK 17 AF_PACKET 38 AF_ALG 40 AF_VSOCK 44 AF_XDP",
    "epoll": "1 EPOLL_CTL_ADD 2 EPOLL_CTL_DEL 3 EPOLL_CTL_MOD",
    "fcntl": "0 F_DUPFD 1 F_GETFD 2 F_SETFD 3 F_GETFL 4 F_SETFL 5 F_GETLK 6 F_SETLK 7 F_SETLKW 8 F_SETOWN 9 F_GETOWN "
    "1024 F_SETLEASE 1025 F_GETLEASE 1030 F_DUPFD_CLOEXEC 1031 F_SETPIPE_SZ 1032 F_GETPIPE_SZ 1033 F_ADD_SEALS "
    "1034 F_GET_SEALS",
    "sigmask": "0 SIG_BLOCK 1 SIG_UNBLOCK 2 SIG_SETMASK",
    "clock": "0 CLOCK_REALTIME 1 CLOCK_MONOTONIC 2 CLOCK_PROCESS_CPUTIME_ID 3 CLOCK_THREAD_CPUTIME_ID "
    "4 CLOCK_MONOTONIC_RAW 5 CLOCK_REALTIME_COARSE 6 CLOCK_MONOTONIC_COARSE 7 CLOCK_BOOTTIME 11 CLOCK_TAI",
}
_SOCKET_TYPES = "1 SOCK_STREAM 2 SOCK_DGRAM 3 SOCK_RAW 4 SOCK_RDM 5 SOCK_SEQPACKET 10 SOCK_PACKET"
_SOCKET_FLAGS = "0x800 SOCK_NONBLOCK 0x80000 SOCK_CLOEXEC"
_FUTEX = (
    "0 FUTEX_WAIT 1 FUTEX_WAKE 3 FUTEX_REQUEUE 4 FUTEX_CMP_REQUEUE 5 FUTEX_WAKE_OP 6 FUTEX_LOCK_PI 7 FUTEX_UNLOCK_PI "
    "8 FUTEX_TRYLOCK_PI 9 FUTEX_WAIT_BITSET 10 FUTEX_WAKE_BITSET 11 FUTEX_WAIT_REQUEUE_PI 12 FUTEX_CMP_REQUEUE_PI "
    "13 FUTEX_LOCK_PI2"
)
_FUTEX_FLAGS = "0x80 FUTEX_PRIVATE_FLAG 0x100 FUTEX_CLOCK_REALTIME"

_INTERNAL_ERRORS = {
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
    514: "ERESTARTNOHAND",
    516: "ERESTART_RESTARTBLOCK",
}
"""Results that a program never sees: a signal came, and the kernel restarts the call or turns this into EINTR."""


def _pairs(text: str) -> dict[int, str]:
    words = text.split()
    return {int(number, 0): name for number, name in zip(words[::2], words[1::2], strict=True)}


def _joined(value: int, names: dict[int, str], zero: str) -> str:
    found = []
    for mask, name in names.items():
        if value & mask == mask:
            found.append(name)
            value &= ~mask
    if value:
        found.append(f"{value:#x}")
    return "|".join(found) or zero


def _flags(text: str, zero: str) -> Callable[[int], str]:
    names = _pairs(text)
    return lambda value: _joined(value & 0xFFFFFFFF, names, zero)


def _numbers(text: str) -> Callable[[int], str]:
    names = _pairs(text)
    return lambda value: names.get(value & 0xFFFFFFFF, str(_as_int(value)))


def _number_and_flags(numbers: str, flags: str, flag_bits: int) -> Callable[[int], str]:
    base, bits = _pairs(numbers), _pairs(flags)

    def name(value: int) -> str:
        value &= 0xFFFFFFFF
        first = base.get(value & ~flag_bits, f"{value & ~flag_bits:#x}" if value & ~flag_bits else "")
        rest = _joined(value & flag_bits, bits, "")
        return "|".join(part for part in (first, rest) if part) or "0"

    return name


def _open_flags(text: str) -> Callable[[int], str]:
    names = _flags(text, "")
    return lambda value: names(value) if value & 3 else "|".join(filter(None, ("O_RDONLY", names(value))))


def _signal(value: int) -> str:
    number = _as_int(value)
    if number in _SIGNALS:
        return _SIGNALS[number]
    return f"SIGRT_{number - 34}" if 34 <= number <= 64 else str(number)


def _as_int(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


_SIGNALS = {int(one): one.name for one in signal.Signals if one < 32}
_OPENS = {kind: text for kind, text in _FLAG_SETS.items() if kind.startswith("open")}

NAMES: dict[str, Callable[[int], str]] = {
    **{name: _flags(text, _ZERO.get(name, "0")) for name, text in _FLAG_SETS.items()},
    **{name: _numbers(text) for name, text in _NUMBER_SETS.items()},
    **{kind: _open_flags(text) for kind, text in _OPENS.items()},
    **{kind.replace("open", "fdflags"): _flags(text, "0") for kind, text in _OPENS.items()},
    "socktype": _number_and_flags(_SOCKET_TYPES, _SOCKET_FLAGS, 0x80800),
    "futex": _number_and_flags(_FUTEX, _FUTEX_FLAGS, 0x180),
    "sig": _signal,
}
"""Kind of argument (see `arch/x86_64/system_calls.py`) -> its value in words. Values are 64-bit registers, unsigned."""


def error_name(number: int) -> str:
    """The name of an errno: `ENOENT`."""
    return errno.errorcode.get(number) or _INTERNAL_ERRORS.get(number, f"errno {number}")
