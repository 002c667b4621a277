"""When the command line gives up privileges: before it looks at a target that is running already, or reads a profile.

Only a process that is pprofpy's own gives up anything. A program that calls `pprofpy.cli.main.run` keeps what it has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NUMPY_THREADS = "OPENBLAS_NUM_THREADS"
_is_own_process = False


def own_process() -> None:
    """Say that this process is there for one command only."""
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
    """Keep what records processes of all users. Call it after a COMMAND was started, which must lose nothing."""
    if _is_own_process:
        from pprofpy.system import privileges

        privileges.give_up(privileges.RECORDING)


def before_reading(*, writes: bool) -> None:
    """Keep what opens the user's own files, under sudo too: for reading, and for writing if the command `writes`."""
    if _is_own_process:
        from pprofpy.system import privileges

        privileges.give_up(privileges.FILES if writes else privileges.READING)
