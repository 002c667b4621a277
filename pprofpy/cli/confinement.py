"""Give up privileges before a running target is inspected or a profile is read.

Only a process that is pprofpy's own gives up anything. A program that calls `pprofpy.cli.main.run` keeps what it has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NUMPY_THREADS = "OPENBLAS_NUM_THREADS"
_is_own_process = False


def own_process() -> None:
    """Declare that this process runs one command only."""
    global _is_own_process
    _is_own_process = True


@contextmanager
def single_threaded_numpy() -> Iterator[None]:
    """While this lasts, importing numpy starts no threads: each would keep the privileges that it was started with.

    Afterwards the environment is the user's own again, for the COMMAND that inherits it.
    """
    if not _is_own_process or _NUMPY_THREADS in os.environ:
        yield
        return
    os.environ[_NUMPY_THREADS] = "1"
    try:
        yield
    finally:
        del os.environ[_NUMPY_THREADS]


def before_recording() -> None:
    """Keep only privileges that record processes of all users. Call it after a COMMAND has started, which keeps all."""
    if _is_own_process:
        from pprofpy.system import privileges

        privileges.give_up(privileges.RECORDING)


def before_reading(*, writes: bool) -> None:
    """Keep only privileges that open the user's files, under sudo too; to write only if the command `writes`."""
    if _is_own_process:
        from pprofpy.system import privileges

        privileges.give_up(privileges.FILES if writes else privileges.READING)
