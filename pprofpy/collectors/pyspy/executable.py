"""The py-spy program: where it is, which version, and how it is started so that it never outlives us."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from pprofpy.errors import NotPossibleError, exhausted
from pprofpy.system import privileges

_PR_SET_PDEATHSIG = 1
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MISSING_HINT = "install it beside pprofpy: pip install py-spy (pipx: pipx inject pprofpy py-spy)"


@cache
def find_program() -> str:
    """The py-spy of our own environment, else the one on PATH; for root, on the system's path.

    Raises:
        NotPossibleError: There is none.
    """
    folders = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts"))]
    candidates = [str(folder / "py-spy") for folder in folders]
    # Under sudo, PATH may be the caller's, and root must not run what lies in one of its folders.
    path = None if os.geteuid() else _SYSTEM_PATH
    program = next(filter(None, (shutil.which(one, path=path) for one in [*candidates, "py-spy"])), None)
    if program is None:
        raise NotPossibleError("py-spy is not installed", _MISSING_HINT)
    return program


def _does_not_run(program: str, error: Exception) -> NotPossibleError:
    running_out = exhausted(error.errno or 0) if isinstance(error, OSError) else None
    return running_out or NotPossibleError(f"{program} does not run here: {error}", _MISSING_HINT)


@cache
def version() -> str:
    """What py-spy calls itself: `py-spy 0.4.3`.

    Raises:
        NotPossibleError: There is none, or it does not run here.
    """
    program = find_program()
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise _does_not_run(program, error) from error
    return done.stdout.strip()


def start(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    stdout: int,
    stderr: int,
    kept: Sequence[int],
) -> subprocess.Popen[bytes]:
    """Start py-spy in a session of its own: a Ctrl-C on the terminal is ours to pass on, when we are ready.

    Args:
        arguments: What follows the program's name.
        environment: Added to ours.
        stdout, stderr: File descriptors to write to.
        kept: File descriptors that it inherits under their own numbers.

    Raises:
        NotPossibleError: There is no py-spy, or it does not run here.
    """
    program = find_program()
    try:
        return subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, **environment},
            pass_fds=kept,
            start_new_session=True,
            preexec_fn=_before_start(os.getpid()),
        )
    except OSError as error:
        raise _does_not_run(program, error) from error


def dump(pid: int, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Let py-spy read the stacks of a process once, without pausing it.

    Raises:
        NotPossibleError: There is no py-spy.
        OSError: It does not run here.
        subprocess.TimeoutExpired: It takes longer than `timeout_s`.
    """
    return subprocess.run(
        [find_program(), "dump", "--nonblocking", "--pid", str(pid)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False,
        preexec_fn=_before_start(os.getpid()),
    )  # fmt: skip


def _before_start(parent: int) -> Callable[[], None]:
    """What the child does before it becomes py-spy: ask for a SIGINT when we die, even by SIGKILL, and give up rights.

    py-spy reads the memory and the files of the target, which may forge them.

    SIGINT and nothing harder: py-spy answers it by letting go of the target. Killed while it attaches, it could leave
    a SIGSTOP behind, and with it a frozen target.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    capabilities = privileges.held_of(privileges.PY_SPY)

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        privileges.keep_only(capabilities)

    return prepare
