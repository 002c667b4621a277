"""Recorder: one kind of measurement, in the hands of a Session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import ClassVar, Self

from pprofpy.model.recording import Recording
from pprofpy.target import Target


class Recorder(ABC):
    """One kind of measurement: opened, told whom to watch, polled, and read window by window.

    Whatever it opens goes into `owned`, so that a recorder that fails half-way leaves nothing in the kernel.

    Attributes:
        kind: The command that it belongs to, as in `off-cpu`.
        has_windows: Can it tell what it found before its end?
        owned: Closes all that was opened, the last one first.
    """

    kind: ClassVar[str]
    has_windows: ClassVar[bool] = True

    def __init__(self) -> None:
        self.owned = ExitStack()

    def open(self) -> None:  # noqa: B027 - a recorder may have nothing to do here
        """Load what is needed, before it is known whom to watch. A recorder of the whole system begins here.

        Raises:
            NotPossibleError: It cannot work here.
        """

    @abstractmethod
    def watch(self, target: Target) -> None:
        """Record a process from now on. The first one begins the recording.

        Raises:
            NotPossibleError: It cannot be recorded.
            TargetError: It has ended.
        """

    @abstractmethod
    def poll(self) -> None:
        """Take in what is new. Called some 20 times a second; never sleeps, and takes a few milliseconds at most."""

    def is_over(self) -> bool:
        """Is there nothing more to come? Asked after each poll; True ends the session."""
        return False

    def window(self) -> Recording:
        """End a window and begin the next one; what was found in it, but for the last moments."""
        raise NotImplementedError(f"{type(self).__name__} has no windows")

    @abstractmethod
    def finish(self) -> Recording:
        """End the recording; the last window."""

    def memory(self) -> str:
        """What the recording takes up, in words; empty if unknown."""
        return ""

    def close(self) -> None:
        """Leave nothing behind. May be called again."""
        self.owned.close()

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
