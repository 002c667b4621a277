"""How an attach can end without an answer."""

from __future__ import annotations

from pprofpy.errors import PprofpyError


class CodeError(PprofpyError):
    """The code that was run in the target raised an exception; nothing of it reached the target's own code.

    Attributes:
        traceback: The target's traceback.
    """

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message, "this is an error in pprofpy: please report it, with this line")
        self.traceback = traceback


class NotAnsweredError(PprofpyError):
    """The interpreter did not run the code in time, or has not finished it."""
