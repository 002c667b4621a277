"""Give up privileges before a running target is inspected or a profile is read.

Only a process that is pprofpy's own gives up anything. A program that calls `pprofpy.cli.main.run` keeps what it has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

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
        from pprofpy.system import own_memory, privileges

        own_memory.return_what_is_freed()
        privileges.give_up(privileges.RECORDING)


def before_reading(output: str = "", *, prunes: bool = False) -> None:
    """Keep only privileges that open the user's files, under sudo too, and let the kernel refuse all else.

    What a hole in a reader could do is held to what the command does: it starts no program, reaches no other process
    and no network, and writes to streams that are open and where it was told alone. Root is still user 0, and most
    files are that one's. Where the kernel cannot do so, the rest holds.

    Args:
        output: The file that it writes; empty or `-` if it writes none.
        prunes: It removes recordings from the profile folder.
    """
    if not _is_own_process:
        return
    from pprofpy.system import landlock, privileges, rights, sandbox

    rights.remember_owner()
    with ExitStack() as opened:
        folders, files = _places(output, opened, prunes=prunes)
        privileges.give_up(privileges.FILES if output or prunes else privileges.READING)
        with suppress(OSError):
            landlock.allow_changes(folders, files)
    with suppress(OSError):
        sandbox.enter(sandbox.refusing_filter())


def _places(output: str, opened: ExitStack, *, prunes: bool) -> tuple[list[int], list[int]]:
    """Descriptors of folders and of files that are written to. What there is not, the command itself complains of."""
    from pathlib import Path

    from pprofpy.errors import OutputError
    from pprofpy.formats.files import STDIO, in_profile_folder
    from pprofpy.formats.output import places

    devnull = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
    opened.callback(os.close, devnull)
    folders, files = [], [devnull]
    with suppress(OSError, OutputError):
        if prunes:
            with in_profile_folder() as found:  # not for longer: this thread acts as the folder's owner meanwhile
                folders.append(os.dup(found))
            opened.callback(os.close, folders[0])
        if output and output != STDIO:
            folder, device = opened.enter_context(places(Path(output)))
            if device >= 0:
                files.append(device)
            elif folder >= 0:
                folders.append(folder)
    return folders, files
