"""The error tree: what can go wrong, what to do about it, and the exit status it ends in.

    PprofpyError                    1  failed
    ├── UsageError                  2  the command line does not make sense
    ├── TargetError                 3  no such target, several, or it ended at once
    ├── NotPossibleError            4  a tool, a kernel feature or a privilege is missing here
    │   ├── TargetPermissionError   4  the target exists, but we may not look inside
    │   └── ImplausibleTargetError  4  what the target shows of itself makes no sense
    ├── ProfileFormatError          5  a file that is not a valid profile
    ├── OutputError                 1  the result could not be written
    └── InterruptedEarly          130  stopped by the user before anything was recorded

Every error carries a hint: the next thing for the user to do. `pprofpy.cli.main` prints both and nothing else;
a traceback is a bug.
"""

from __future__ import annotations

import errno
import os
from typing import ClassVar


class PprofpyError(Exception):
    """Something failed in a way that we foresaw.

    Args:
        message: What happened and why, in one line.
        hint: What the user can do now; a command where there is one.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PprofpyError):
    """The options contradict each other, or a value is out of its range."""

    exit_code = 2


class TargetError(PprofpyError):
    """There is no such process, it is not the kind that was asked for, or it has ended."""

    exit_code = 3


class NotPossibleError(PprofpyError):
    """This machine, kernel or installation lacks what the command needs."""

    exit_code = 4


class NotStartedError(NotPossibleError):
    """A process has a Python loaded, and does not use it: it may only start others that do."""


class NoLockError(NotPossibleError):
    """A process's interpreter lock is asked for, and it has none, or none that is known."""


class TargetPermissionError(NotPossibleError):
    """The target belongs to somebody else, or the kernel forbids looking inside it."""


class ImplausibleTargetError(NotPossibleError):
    """What the target shows of itself is damaged, forged, or beyond what any program has."""


class ProfileFormatError(PprofpyError):
    """A file is not a profile, is cut short, or contradicts itself."""

    exit_code = 5


class OutputError(PprofpyError):
    """The result could not be written where it was asked for.

    Attributes:
        is_rescued: It was written elsewhere; the message says where.
    """

    is_rescued = False


class InterruptedEarly(PprofpyError):  # noqa: N818 - named for what happened; it is no fault
    """The user stopped the command before there was anything to keep."""

    exit_code = 130


def exhausted(code: int) -> NotPossibleError | None:
    """What we have run out of, if an error number says so: descriptors, memory, locked memory, processes.

    Args:
        code: `errno` of an OSError; whatever it was raised for, this is then the reason.
    """
    if code == errno.EMFILE:
        return NotPossibleError("we may not open more files (the limit on open files)", "raise it: ulimit -n 65536")
    if code == errno.ENFILE:
        return NotPossibleError("the system has too many files open", "raise its limit: sysctl -w fs.file-max=1000000")
    if code in (errno.ENOMEM, errno.ENOBUFS):
        return NotPossibleError(
            "there is not enough memory", "free some, or raise the limit on it: of this container, or by ulimit -v"
        )
    if code == errno.EAGAIN:
        return NotPossibleError(
            "a limit on locked memory or on processes is reached", "raise it: ulimit -l unlimited, ulimit -u unlimited"
        )
    return None


def exhausted_in(text: str) -> NotPossibleError | None:
    """The same for a message of somebody else's code, which has swallowed the number."""
    for code in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        if os.strerror(code) in text:
            return exhausted(code)
    return exhausted(errno.ENOMEM) if "failed to map segment" in text else None  # the dynamic loader's word for it
