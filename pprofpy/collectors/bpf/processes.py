"""Small facts about processes that several collectors need."""

from __future__ import annotations

import psutil

from pprofpy.errors import TargetError


def family(pid: int) -> list[int]:
    """A process and those that it has started, as far as they run now.

    Raises:
        TargetError: There is no such process.
    """
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess as error:
        raise TargetError(f"there is no process {pid}", "'ps -ef' lists those there are") from error


def comm_text(comm: bytes) -> str:
    """A thread's name; the kernel promises no encoding."""
    return comm.split(b"\0")[0].decode("utf-8", "replace")
