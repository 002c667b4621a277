"""Session: the one loop. It owns the deadline, the stop and the recorders, and yields their windows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from pprofpy.errors import PprofpyError
from pprofpy.model.recording import Recording
from pprofpy.session.circumstances import Circumstances
from pprofpy.session.recorder import Recorder
from pprofpy.target import Membership, Watched
from pprofpy.units import NS_PER_S

FOREVER = None
"""As a duration: until the target ends or `stop` is set."""

WINDOW_NS = 8 * NS_PER_S
"""A crash loses the last 10 s at most: on a busy machine a window is 2 s late, which is put together and written."""

_POLL_NS = NS_PER_S // 20


class Stop(Protocol):
    """Ends a session early; `threading.Event` is one."""

    def wait(self, timeout: float) -> bool:
        """Sleep for at most `timeout` seconds; return True as soon as the session is to stop."""


class Session:
    """Drives recorders that are open and watch their processes.

    A session ends when its duration is over, the target has ended, a recorder is over, or `stop` is set.

    Args:
        recorders: The recorders to poll.
        stop: Ends the session early.
        target: Its end ends the session; None for the whole system.
        duration_ns: How long to record, in nanoseconds; FOREVER for as long as the target lives.
        window_ns: The length of a window, in nanoseconds.
        on_poll: Called after each poll with the nanoseconds since the beginning.

    Attributes:
        failure: The error that ended the session early; its windows up to then are yielded all the same.
        remarks: What the user should know of the target's circumstances as the recording begins.
    """

    def __init__(
        self,
        recorders: Sequence[Recorder],
        stop: Stop,
        *,
        target: Watched | None = None,
        duration_ns: int | None = FOREVER,
        window_ns: int = WINDOW_NS,
        on_poll: Callable[[int], object] = lambda elapsed_ns: None,
    ) -> None:
        self._recorders = recorders
        self._stop = stop
        self._target = target
        self._duration_ns = duration_ns
        self._window_ns = window_ns
        self._on_poll = on_poll
        self._start_ns = max((recorder.start_ns for recorder in recorders), default=0) or time.monotonic_ns()
        self.failure: PprofpyError | None = None
        self._membership = Membership(target)
        self._circumstances = Circumstances(target.members) if target else None
        self.remarks = self._circumstances.remarks if self._circumstances else ()

    def windows(self) -> Iterator[Recording]:
        """Yield the windows of each recorder as they end, and the last ones when the session ends.

        Raises:
            PprofpyError: A recorder failed; raised after the last windows.
        """
        due_ns = self._start_ns + self._window_ns
        if self._duration_ns is not None:
            for recorder in self._recorders:
                recorder.end_at((recorder.start_ns or self._start_ns) + self._duration_ns)
        try:
            while self._goes_on():
                if time.monotonic_ns() >= due_ns:
                    due_ns += self._window_ns
                    for recorder in self._recorders:
                        if recorder.has_windows:
                            yield self._of_target(recorder.window())
        except PprofpyError as error:
            self.failure = error
        yield from self._last_windows()

    def _goes_on(self) -> bool:
        """Sleep until the next poll, and poll; return False when the session is over."""
        elapsed_ns = time.monotonic_ns() - self._start_ns
        left_ns = _POLL_NS if self._duration_ns is None else min(_POLL_NS, self._duration_ns - elapsed_ns)
        if self._stop.wait(max(left_ns, 0) / NS_PER_S):
            return False
        for recorder in self._recorders:
            recorder.poll()
        self._take_changes()
        elapsed_ns = time.monotonic_ns() - self._start_ns
        self._on_poll(elapsed_ns)
        is_over = self._duration_ns is not None and elapsed_ns >= self._duration_ns
        is_over = is_over or any(recorder.is_over() for recorder in self._recorders)
        return not is_over and not self._membership.is_over()

    def _take_changes(self) -> None:
        """Tell the recorders who has entered or left the control group that is recorded."""
        if not self._membership.is_due():
            return
        followed = set().union(*(recorder.followed() for recorder in self._recorders))
        entered, left = self._membership.changes(followed)
        for recorder in self._recorders:
            for pid in left:
                recorder.leave(pid)
            for pid in entered:
                recorder.enter(pid)

    def _last_windows(self) -> Iterator[Recording]:
        """Finish every recorder and yield its last window; then raise the session's first error, if any."""
        for recorder in self._recorders:
            try:
                last = recorder.finish()
            except PprofpyError as error:
                self.failure = self.failure or error
                continue
            yield self._noted(self._of_target(last))
        if self.failure:
            raise self.failure

    def _of_target(self, window: Recording) -> Recording:
        """The window, which knows when its process started: source may be newer."""
        if self._target:
            profile = window.profile
            profile.collection = replace(profile.collection, started_ns=self._target.started_ns())
        return window

    def _noted(self, last: Recording) -> Recording:
        """The last window, with what is to be known of the circumstances."""
        profile = last.profile
        notes = self._circumstances.notes() if self._circumstances else ()
        profile.collection = replace(profile.collection, notes=(*profile.collection.notes, *notes))
        return last
