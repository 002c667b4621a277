"""Seccomp filters for processes of ours that work on what others have made.

Source: man 2 seccomp; <linux/seccomp.h>, <linux/filter.h> (struct sock_filter), <linux/bpf_common.h>.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from pprofpy.arch import here, is_known

COMPUTING = (
    "read", "write", "brk", "mmap", "munmap", "mprotect", "mremap", "madvise", "futex", "rt_sigreturn", "getrandom",
    "exit", "exit_group",
)  # fmt: skip
"""Memory, streams that are open, and the end. Nothing opens, connects, starts or traces anything."""

NEVER_VIEWING = (
    "execve", "execveat", "unshare", "setns",
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp",
    "kill", "tkill", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo",
    "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4",
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat",
    "utime", "utimes", "futimesat", "utimensat", "truncate", "file_setattr",
    "setxattr", "lsetxattr", "fsetxattr", "setxattrat",
    "removexattr", "lremovexattr", "fremovexattr", "removexattrat",
    "mount", "umount2", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick",
    "mount_setattr", "pivot_root", "chroot", "swapon", "swapoff", "quotactl", "quotactl_fd", "acct",
    "mknod", "mknodat", "open_by_handle_at", "fanotify_init",
    "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
    "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "syslog",
    "add_key", "request_key", "keyctl", "iopl", "ioperm", "modify_ldt",
    "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname",
)  # fmt: skip
"""What no view does: start programs, reach other processes, the network or the kernel, change what files are."""

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _MACHINE_AT = 0, 4
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_REFUSE = _ERROR | errno.EPERM
_INSTRUCTION = struct.Struct("<HBBI")
_X32 = 0x40000000
"""From here on, the numbers of another set of system calls begin on x86-64 (__X32_SYSCALL_BIT)."""

_PR_SET_SECCOMP, _FILTER = 22, 2


def seccomp_filter(allowed: Iterable[str] = COMPUTING) -> bytes:
    """A classic BPF program that lets a process make these system calls; all others fail with EPERM.

    A system call of another machine's (of a 32-bit program's), with other numbers, ends the process. Empty where the
    numbers are not known.
    """
    return _program(allowed, named=_ALLOW, others=_REFUSE)


def refusing_filter(refused: Iterable[str] = NEVER_VIEWING) -> bytes:
    """As `seccomp_filter`, but these system calls fail with EPERM, and all others can be made."""
    return _program(refused, named=_REFUSE, others=_ALLOW)


def enter(program: bytes) -> None:
    """Put this thread under a filter, for good, and what it starts. It needs `no_new_privs`; empty: nothing changes.

    Raises:
        OSError: The kernel has no seccomp.
    """
    if not program:
        return
    kept, libc = ctypes.create_string_buffer(program), ctypes.CDLL(None, use_errno=True)
    header = struct.pack("@HP", len(program) // _INSTRUCTION.size, ctypes.addressof(kept))
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), header, ctypes.c_ulong(0), ctypes.c_ulong(0)):
        code = ctypes.get_errno()
        raise OSError(code, f"seccomp: {os.strerror(code)}")


def _program(names: Iterable[str], *, named: int, others: int) -> bytes:
    if not is_known():
        return b""
    numbers = [number for name in names if (number := here().system_call_number(name)) is not None]
    checks = [(_JUMP_IF_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    program = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_JUMP_IF_EQUAL, 1, 0, here().audit_architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _REFUSE),
        *checks,
        (_RETURN, 0, 0, others),
        (_RETURN, 0, 0, named),
    ]
    return b"".join(_INSTRUCTION.pack(*one) for one in program)
