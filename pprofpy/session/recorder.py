"""Recorder: one kind of measurement, in the hands of a Session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import ClassVar, Self

from pprofpy.errors import TargetError
from pprofpy.model.recording import Recording
from pprofpy.target import Group, Target, Watched


class Recorder(ABC):
    """One kind of measurement: a session opens it, lets it watch processes, polls it and reads its windows.

    Whatever it opens goes into `owned`, so that a recorder that fails half-way leaves nothing in the kernel.

    Attributes:
        kind: The command that it belongs to, as in `off-cpu`.
        has_windows: Can it return windows before its end?
        owned: Closes all that was opened, in reverse order.
        remarks: What the user should know, as the recording begins, of what it will not see.
        start_ns: When the recording began, on the monotonic clock; 0 if that is not known.
    """

    kind: ClassVar[str]
    has_windows: ClassVar[bool] = True
    start_ns = 0

    def __init__(self) -> None:
        self.owned = ExitStack()
        self.remarks: list[str] = []

    def open(self) -> None:  # noqa: B027 - a recorder may have nothing to do here
        """Load what needs no target. A recorder of the whole system begins to record here.

        Raises:
            NotPossibleError: It cannot work here.
        """

    @abstractmethod
    def watch(self, target: Target) -> None:
        """Record a process from now on. The first call begins the recording.

        Raises:
            NotPossibleError: The process cannot be recorded.
            TargetError: The process has ended.
        """

    def watch_all(self, watched: Watched) -> None:
        """Record each process of a group from now on, but for those that have ended meanwhile.

        Raises:
            NotPossibleError: One of them cannot be recorded, and they are not those of a control group.
            TargetError: All have ended, or one cannot be recorded although it lives.
        """
        if isinstance(watched, Group) and watched.control_group:
            for target in watched.members:
                self.enter(target.pid)
            return
        for target in watched.members:
            try:
                self.watch(target)
            except TargetError:
                if target.is_alive() or not any(one.is_alive() for one in watched.members):
                    raise

    def enter(self, pid: int) -> None:
        """Record a process of a control group from now on, if that is possible: it may be no Python, or have ended.

        As with `watch`, the first call begins the recording.
        """
        raise NotImplementedError(f"{type(self).__name__} records no control groups")

    def leave(self, pid: int) -> None:
        """Record a process no more: it has left its control group, or ended."""
        raise NotImplementedError(f"{type(self).__name__} records no control groups")

    def followed(self) -> set[int]:
        """Return the processes that the kernel watches: it has followed forks, perhaps out of the control group."""
        return set()

    @abstractmethod
    def poll(self) -> None:
        """Read new data. Called about 20 times per second; never sleeps, and takes a few milliseconds at most."""

    def end_at(self, end_ns: int) -> None:  # noqa: B027 - most engines need not know
        """Tell when the recording will end, on the monotonic clock: what comes later need not be recorded."""

    def is_over(self) -> bool:
        """Return True if no more data will come; that ends the session. Called after each poll."""
        return False

    def window(self) -> Recording:
        """End the window, begin the next one, and return what it holds; data of its last moments may be in the next."""
        raise NotImplementedError(f"{type(self).__name__} has no windows")

    @abstractmethod
    def finish(self) -> Recording:
        """End the recording and return the last window."""

    def memory(self) -> str:
        """Return how much memory the recording uses, as text; empty if unknown."""
        return ""

    def close(self) -> None:
        """Release everything; further calls do nothing."""
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
