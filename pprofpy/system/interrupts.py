"""Ctrl-C and SIGTERM: a recording is asked to end by the first; the second ends pprofpy at once, whatever it is doing.

Python runs its signal handlers between two of its own instructions, so never while C code is busy or blocked. Therefore
the kernel is told, too: a handler that has not run yet is gone when the next signal comes (SA_RESETHAND), and what is
left then is the default, the end. A handler that does run puts itself back.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # that of `typing` would take longer to import than all the rest of this module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

UNFINISHED: set[tuple[int, str]] = set()
"""Temporary files, by folder's descriptor and name, to be removed if we end at once."""

_SA_RESETHAND = 0x80000000
_ACTION_BYTES, _FLAGS_OFFSET = 152, 136
"""`struct sigaction` of glibc and musl, on x86-64 and arm64: a pointer, 1024 bits of mask, flags, a pointer."""

_IGNORE = 1
"""SIG_IGN, as the handler in a `struct sigaction`."""

_asked = False

_SHOW_CURSOR = b"\x1b[?25h"


def end_at_once(signal_number: int, _frame: object = None) -> NoReturn:
    """A signal handler: exit with 128 + `signal_number`. Nothing is raised, so no traceback can come of it."""
    for folder, name in tuple(UNFINISHED):
        try:  # noqa: SIM105 - contextlib is not imported yet
            os.unlink(name, dir_fd=folder)
        except OSError:
            pass
    try:
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)  # a progress bar hides it
        os.write(2, b"pprofpy: interrupted\n")
    except OSError:
        pass
    os._exit(128 + signal_number)


def handle_once(signal_number: int, handler: Callable[[int, object], object]) -> Any:
    """Let `handler` have the next signal of this number, and the kernel's default, the end, the one after that.

    Returns:
        What handled it before, for `signal.signal`.
    """
    import ctypes
    import signal

    before = signal.signal(signal_number, handler)
    action, libc = ctypes.create_string_buffer(_ACTION_BYTES), ctypes.CDLL(None)
    if libc.sigaction(signal_number, None, action) == 0:
        ctypes.c_uint.from_buffer(action, _FLAGS_OFFSET).value |= _SA_RESETHAND
        libc.sigaction(signal_number, action, None)
    return before


def set_asked(asked: bool) -> None:
    """Note whether the user wants a recording to end: then nothing may wait for long."""
    global _asked
    _asked = asked


def has_asked() -> bool:
    """Return True if the user wants a recording to end."""
    return _asked


class Unstoppable:
    """A context in which Ctrl-Z, or the terminal that we write to from the background, does not stop this process.

    Whoever holds another process's thread must not be stopped: the thread would be, for as long as we are. A Ctrl-Z in
    this millisecond is lost. (SIGSTOP cannot be put off.) To be entered by one thread at a time.
    """

    def __enter__(self) -> None:
        import ctypes
        import signal

        self._libc, self._before = ctypes.CDLL(None), {}
        ignored = ctypes.create_string_buffer(_ACTION_BYTES)
        ctypes.c_void_p.from_buffer(ignored).value = _IGNORE
        for number in (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
            before = ctypes.create_string_buffer(_ACTION_BYTES)
            if self._libc.sigaction(number, ignored, before) == 0:
                self._before[number] = before

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            self._libc.sigaction(number, before, None)
