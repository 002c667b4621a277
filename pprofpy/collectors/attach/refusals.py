"""When not to attach at all, and how to say so: each reason with what to do about it."""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from pathlib import Path

from pprofpy.arch import require_attaching, system_call_number
from pprofpy.collectors.cpython.versions import VERSIONS, spelled
from pprofpy.errors import NotPossibleError, TargetError, TargetPermissionError
from pprofpy.system.privileges import NEEDED
from pprofpy.target import Target, permission_error, procfs
from pprofpy.target.freezer import refuse_frozen, refuse_stopped
from pprofpy.text import printable

_NO_ATTACH = "3"
_PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
_KCMP_VM = 1

_libc = ctypes.CDLL(None)


def check(target: Target) -> None:
    """Refuse what is known not to work, before anything is touched.

    Raises:
        NotPossibleError: This interpreter, machine or state of the process cannot be entered.
        TargetError: It has ended.
    """
    interpreter = target.interpreter
    require_attaching()
    if interpreter.implementation != "CPython":
        raise NotPossibleError(f"{target} cannot be entered: only CPython can", "run the program with CPython")
    version = re.match(r"(\d+)\.(\d+)", interpreter.version)
    if version and (int(version[1]), int(version[2])) < (oldest := min(VERSIONS)):
        raise NotPossibleError(
            f"{target} is too old to be entered", f"run the program with Python {spelled(oldest)} or later"
        )
    if not target.is_alive():
        raise ended(target)
    refuse_stopped(target)
    refuse_frozen(target)
    if _shares_memory_with_its_parent(target.pid):
        raise NotPossibleError(
            f"{target} is only about to become another program: it still lives in its parent's memory (vfork)",
            "enter its parent, or this one later",
        )
    if "shstk" in procfs.status(target.pid).cpu_features:
        raise NotPossibleError(
            f"{target} runs with shadow stacks", "start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off"
        )


def not_allowed(target: Target) -> NotPossibleError:
    """The error for a thread that we were not allowed to trace."""
    if tracer := tracer_of(target):
        pid, name = tracer
        return NotPossibleError(
            f"{target} is being traced by {name} (pid {pid}); a process has only one tracer at a time",
            f"end {name} first, or wait for it",
        )
    with suppress(OSError):
        if _PTRACE_SCOPE.read_text().strip() == _NO_ATTACH:
            return TargetPermissionError(
                "this machine forbids ptrace altogether (kernel.yama.ptrace_scope is 3)",
                "only a restart with another setting in /etc/sysctl.d changes that",
            )
    return permission_error(target.pid, target.user, NEEDED["heap"][1])


def filtered(target: Target, objection: str) -> NotPossibleError:
    """The error for a process whose seccomp filters are in the way."""
    return NotPossibleError(
        f"{target} is under seccomp, and {objection}: entering it could kill it",
        "run pprofpy as root outside of the sandbox, or start the program without it (docker: seccomp=unconfined)",
    )


def no_thread(target: Target, number: int) -> NotPossibleError:
    """The error for a process that may not have another thread, or no memory for it."""
    return NotPossibleError(f"{target} cannot start a thread: {os.strerror(number)}", "check its limits: ulimit -u, -v")


def ended(target: Target) -> TargetError:
    """The error for a process that is no more, or no longer this program."""
    if target.is_alive():
        return TargetError(f"{target} has become another program just now", "try again, if that is Python, too")
    return TargetError(f"{target} has ended", "list Python processes with 'pgrep -af python'")


def tracer_of(target: Target) -> tuple[int, str] | None:
    """Who traces any of its threads: pid and name; None if it is in another pid namespace."""
    with suppress(OSError):
        for tid in procfs.tids(target.pid):
            with suppress(OSError):
                tracer = procfs.status(target.pid, tid).tracer
                pid = procfs.status(tracer).pid if tracer else 0  # it is a thread that traces
                if pid and pid != os.getpid():
                    return pid, printable(procfs.thread_name(pid))
    return None


def _shares_memory_with_its_parent(pid: int) -> bool:
    """Is it between vfork and exec? Its threads are not its own then, as far as the C library is concerned."""
    parent = procfs.status(pid).parent
    return parent > 0 and _libc.syscall(system_call_number("kcmp"), pid, parent, _KCMP_VM, 0, 0) == 0
