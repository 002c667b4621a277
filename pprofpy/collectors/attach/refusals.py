"""When not to attach at all, and how to say so: each reason with what to do about it."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from pathlib import Path

from pprofpy.errors import NotPossibleError, TargetError, TargetPermissionError
from pprofpy.target import Target, permission_error, printable

_OLDEST = (3, 8)
_NO_ATTACH = "3"
_PTRACE_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")


def check(target: Target) -> None:
    """Refuse what is known not to work, before anything is touched.

    Raises:
        NotPossibleError: This interpreter, machine or state of the process cannot be entered.
        TargetError: It has ended.
    """
    interpreter = target.interpreter
    if platform.machine() != "x86_64":
        raise NotPossibleError(f"attaching works on x86-64 only, this is {platform.machine()}")
    if interpreter.implementation != "CPython":
        raise NotPossibleError(f"{target} cannot be entered: only CPython can", "run the program with CPython")
    version = re.match(r"(\d+)\.(\d+)", interpreter.version)
    if version and (int(version[1]), int(version[2])) < _OLDEST:
        raise NotPossibleError(f"{target} is too old to be entered", "run the program with Python 3.8 or later")
    state = target.state()
    if not state:
        raise ended(target)
    if state == "T":
        raise NotPossibleError(f"{target} is stopped (state T)", f"let it go on first: kill -CONT {target.pid}")
    if "shstk" in status(target.pid).get("x86_Thread_features", ""):
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
    return permission_error(target.pid, target.user)


def filtered(target: Target, objection: str) -> NotPossibleError:
    """The error for a process whose seccomp filters are in the way."""
    return NotPossibleError(
        f"{target} is under seccomp, and {objection}: entering it could kill it",
        "run pprofpy as root outside of the sandbox, or start the program without it (docker: seccomp=unconfined)",
    )


def no_thread(target: Target, number: int) -> NotPossibleError:
    """The error for a process that may not have another thread, or no memory for it."""
    return NotPossibleError(
        f"{target} cannot start a thread: {os.strerror(number)}", "look at its limits: ulimit -u, -v"
    )


def ended(target: Target) -> TargetError:
    """The error for a process that is no more."""
    return TargetError(f"{target} has ended", "list Python processes with 'pgrep -af python'")


def tracer_of(target: Target) -> tuple[int, str] | None:
    """Who traces any of its threads: pid and name; (0, ...) if it is in another pid namespace."""
    with suppress(OSError):
        for tid in os.listdir(f"/proc/{target.pid}/task"):  # noqa: PTH208 - names only
            with suppress(OSError):
                pid = int(status(int(tid))["TracerPid"])
                if pid and pid != os.getpid():
                    return pid, printable(Path(f"/proc/{pid}/comm").read_text().strip())
    return None


def status(pid: int) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
