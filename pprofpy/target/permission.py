"""What we may do, and how to say that it is not enough."""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from collections.abc import Collection
from pathlib import Path

from pprofpy.errors import NotPossibleError, TargetPermissionError
from pprofpy.system.privileges import Capability, in_words, lacking
from pprofpy.target import procfs
from pprofpy.text import printable

CAP_SYS_PTRACE = 19


def permission_error(
    pid: int, user: str, needed: Collection[Capability] = (Capability.SYS_PTRACE,)
) -> TargetPermissionError:
    """The error for a process that exists but that we may not look into, with what to type instead.

    Args:
        pid: The process.
        user: Whose it is.
        needed: What it takes to look into a process of another user.
    """
    missing = lacking(needed)
    if not missing:
        return TargetPermissionError(
            f"the kernel does not let us inspect process {pid}: it has privileges that we lack",
            "run pprofpy on the host, outside of this container or sandbox",
        )
    if os.geteuid() == 0:
        return TargetPermissionError(
            f"no permission to inspect process {pid}, although we are root",
            f"{in_words(missing)} {'is' if len(missing) == 1 else 'are'} missing; start the container with "
            f"{' '.join(f'--cap-add {one.name}' for one in missing)} (Kubernetes: capabilities.add)",
        )
    if user != user_name(os.geteuid()):
        return TargetPermissionError(
            f"process {pid} belongs to {user}", f"run {with_sudo()}; or grant {in_words(missing)}"
        )
    return TargetPermissionError(
        f"the kernel does not let us inspect process {pid} (ptrace is restricted)",
        f"run {with_sudo()}; or grant {Capability.SYS_PTRACE}",
    )


def require_proc() -> None:
    """Raise where the kernel cannot tell of processes.

    Raises:
        NotPossibleError: /proc is not mounted, or is another pid namespace's.
    """
    if procfs.own_number() != os.getpid():
        raise NotPossibleError(
            "/proc is not mounted here, or shows another pid namespace than ours",
            "mount -t proc proc /proc (with unshare: --mount-proc)",
        )


def user_namespace_error() -> NotPossibleError | None:
    """Return the error for a user namespace of our own, where no capability counts for probes; None on the host."""
    if procfs.is_host_user_namespace():
        return None
    return NotPossibleError(
        "we are in a user namespace of our own, where the kernel lets nobody load probes, not even root",
        "run pprofpy on the host, or in a container without one: docker run --userns=host, podman as root, "
        "in Kubernetes hostUsers: true",
    )


def has_capability(bit: int) -> bool:
    """Do we have this capability in effect?"""
    return bool(procfs.status("self").capabilities >> bit & 1)


def with_sudo(command: str = "cpu") -> str:
    """This very command line, to be run as root: `-I`, so that root imports nothing from the folder we are in.

    Args:
        command: What the user of `doctor` wants to run: as root, doctor itself would only say that root may.
    """
    words = sys.argv[1:]
    if words[:1] == ["doctor"]:
        words = [command, *([word for word in words[1:] if word != "--json"] or ["--pid", "PID"])]
    program = Path(sys.argv[0])
    ours = [sys.executable, "-I", "-m", "pprofpy"] if program.name == "__main__.py" else [str(program.resolve())]
    return printable(shlex.join(["sudo", *ours, *words]))


def user_name(uid: int) -> str:
    """A user's name, or the number if nobody is called so."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
