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


class TargetPermissionError(NotPossibleError):
    """The target belongs to somebody else, or the kernel forbids looking inside it."""


class ImplausibleTargetError(NotPossibleError):
    """What the target shows of itself is damaged, forged, or beyond what any program has."""


class ProfileFormatError(PprofpyError):
    """A file is not a profile, is cut short, or contradicts itself."""

    exit_code = 5


class OutputError(PprofpyError):
    """The result could not be written where it was asked for."""


class InterruptedEarly(PprofpyError):  # noqa: N818 - named for what happened; it is no fault
    """The user stopped the command before there was anything to keep."""

    exit_code = 130
