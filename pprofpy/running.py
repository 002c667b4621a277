"""A recording that a thread of its own makes, for the library: windows are handed over as they end."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator

from pprofpy.model.merge import merge_recordings
from pprofpy.model.recording import Recording
from pprofpy.session import Recorder, Session, Stop
from pprofpy.target import Target

MOST_WINDOWS = 32
"""Windows that are kept apart, of those that nobody has taken yet and of the whole; beyond, they are merged."""

_AT_EXIT_S = 10.0


class Running:
    """Makes a recording, from `start` on.

    Args:
        make: Makes it with `record`, in the thread.
        stop: Ends it early, as `stop` does.
    """

    def __init__(self, make: Callable[[Running], Recording], stop: Stop | None) -> None:
        self._make, self._given = make, stop
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._new: list[Recording] = []
        self._whole: Recording | None = None
        self._error: BaseException | None = None
        self._has_begun = self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="pprofpy", daemon=True)

    def start(self) -> None:
        """Begin, and return when everything is in place.

        Raises:
            PprofpyError: It cannot be recorded.
        """
        atexit.register(self._end)
        self._thread.start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._has_begun or self._has_ended)
        except BaseException:  # Ctrl-C
            self.stop()
            raise
        if self._error and not self._has_begun:
            raise self._error

    def record(self, recorder: Recorder, target: Target | None, duration_ns: int | None, window_ns: int) -> Recording:
        """Run a session to its end; for `make`. Called again, it begins anew: an engine has failed."""
        with self._changed:
            self._has_begun, self._new = True, []
            self._changed.notify_all()
        session = Session([recorder], self, target=target, duration_ns=duration_ns, window_ns=window_ns)
        kept: list[Recording] = []
        for window in session.windows():
            kept = _bounded([*kept, window])
            with self._changed:
                self._new = _bounded([*self._new, window])
                self._changed.notify_all()
        return merge_recordings(kept)

    def wait(self, timeout: float) -> bool:
        """Is it to end? As a session asks."""
        if self._given is None:
            return self._stop.wait(timeout)
        return self._stop.is_set() or self._given.wait(timeout)

    def stop(self) -> None:
        """End it soon; what was recorded stays."""
        self._stop.set()

    def join(self) -> None:
        """Wait for the end, however it comes."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended)

    def windows(self) -> Iterator[Recording]:
        """Those that nobody has taken yet, each as it ends; until the recording has ended.

        Raises:
            PprofpyError: The recording failed; raised after the last window.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._new or self._has_ended)
                new, self._new = self._new, []
            yield from new
            if not new:
                self.whole()
                return

    def whole(self) -> Recording:
        """All windows as one, when it has ended.

        Raises:
            PprofpyError: The recording failed.
        """
        self.join()
        if self._whole is None:
            raise self._error or RuntimeError("the recording's thread ended without a word")
        return self._whole

    def _run(self) -> None:
        try:
            self._whole = self._make(self)
        except BaseException as error:  # for whoever waits
            self._error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()
            atexit.unregister(self._end)

    def _end(self) -> None:
        """The program ends: let go of the target first."""
        self.stop()
        self._thread.join(_AT_EXIT_S)


def _bounded(windows: list[Recording]) -> list[Recording]:
    return windows if len(windows) <= MOST_WINDOWS else [merge_recordings(windows)]
