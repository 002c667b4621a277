"""Run a session for a recording command: windows go to a spool, so a crash loses at most the last one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pprofpy.cli.console import remark
from pprofpy.cli.saving import file_name
from pprofpy.errors import PprofpyError
from pprofpy.formats import spool
from pprofpy.formats.files import in_profile_folder, profile_folder
from pprofpy.formats.spool import Spool
from pprofpy.model.recording import Option, Recording
from pprofpy.session import Recorder, Session, Stop
from pprofpy.session.session import WINDOW_NS
from pprofpy.target import Watched
from pprofpy.target.usage import usage


@dataclass(frozen=True, slots=True)
class Length:
    """The length of a recording (None: until the target ends) and of a window, in nanoseconds."""

    duration_ns: int | None
    window_ns: int = WINDOW_NS


@contextmanager
def spooled(kind: str, target: Watched | None) -> Iterator[Spool]:
    """Open a spool for one recording. It is deleted when the recording has been saved, and stays if that fails.

    Raises:
        PprofpyError: Whatever the body raises; the message then says where the windows are.
    """
    name = f"{file_name(kind, target)}-{os.getpid()}{spool.SUFFIX}"
    with ExitStack() as opened:
        folder = -1
        with suppress(OSError), in_profile_folder(create=True) as found:
            folder = os.dup(found)
            opened.callback(os.close, folder)
        windows = opened.enter_context(Spool(folder, name))
        try:
            yield windows
        except BaseException as error:
            path = profile_folder() / name
            if not windows.is_saved or getattr(error, "is_rescued", False):
                windows.discard()
            elif isinstance(error, PprofpyError):
                _tell_where(error, path)
            raise
        windows.discard()


def record(
    recorders: Sequence[Recorder],
    windows: Spool,
    shown: Mapping[str, Option],
    length: Length,
    stop: Stop,
    target: Watched | None,
    on_poll: Callable[[int], object] = lambda elapsed_ns: None,
    on_window: Callable[[Recording], Recording] = lambda window: window,
) -> Recording:
    """Run a session to its end.

    Args:
        recorders: Open, and watching.
        windows: Takes each window as it ends.
        shown: The options that shape what the command prints.
        length: The length of the recording and of a window.
        stop: Ends the recording early.
        target: Its end ends the recording; None for the whole system.
        on_poll: Called with the nanoseconds recorded so far.
        on_window: Maps each window to the one that is kept.

    Returns:
        All windows as one recording.

    Raises:
        PprofpyError: A recorder failed, or nothing was recorded.
    """
    session = Session(
        recorders, stop, target=target, duration_ns=length.duration_ns, window_ns=length.window_ns, on_poll=on_poll
    )
    for text in (*session.remarks, *(text for recorder in recorders for text in recorder.remarks)):
        remark(text)
    told = ""
    for window in session.windows():
        windows.append(replace(on_window(window), shown=shown))
        if windows.problem != told:
            told = windows.problem
            if told:
                remark(f"the recording is only in memory for now ({told}): a crash would lose it")
    found = windows.recording()
    if found is None:  # a session always has a last window
        raise PprofpyError("nothing was recorded", "try again")
    if not len(found.profile):
        windows.clear()  # nothing that could be lost
    return found


def named(window: Recording, target: Watched | None) -> Recording:
    """The window with the name of what it is of: a recorder knows pids, or one process of several."""
    if target:
        window.profile.collection = replace(window.profile.collection, target=str(target))
    return window


def print_costs(recorder: Recorder) -> None:
    """Print the memory and CPU time that the recording uses: for -v."""
    if memory := recorder.memory():
        remark(f"memory: {memory}")
    remark(f"pprofpy itself: {usage()}")


def _tell_where(error: PprofpyError, path: Path) -> None:
    error.message += f"; the recording up to then is in {path}"
    error.hint = error.hint or f"pprofpy show {path}"
