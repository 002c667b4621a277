"""How much is read from a target at most: it must not keep us busy, nor fill our memory, for as long as it likes."""

from __future__ import annotations

import time

from pprofpy.errors import ImplausibleTargetError

MOST_STEPS, MOST_BYTES, MOST_SECONDS = 1_000_000, 64 << 20, 5.0

_BLOCKED_FACTOR = 10

_LARGE = 4096
"""Bytes that take so long to read that the clock may as well be read, too."""

_STEPS_PER_CHECK = 1024
"""Steps from one reading of the clock to the next."""


class Budget:
    """What one task may spend on a target.

    Its time is CPU time of the thread, so that a busy machine makes no target look hostile. What blocks counts, too:
    ten times as long may pass by the clock, from the moment that this is made.

    A step is whatever a loop over the target's data does once. Spending a step costs 50 ns: it may be done in every
    round of the innermost loop.

    Args:
        what: What is read, for the error, as in "the threads of process 12".
        steps: How many steps.
        size: How many bytes.
        seconds: How much CPU time of the thread that makes this.

    Raises (all methods):
        ImplausibleTargetError: There is more of it than any program has.
    """

    __slots__ = ("_bytes", "_cpu_deadline", "_deadline", "_next_check", "_steps", "_what")

    def __init__(
        self, what: str, *, steps: int = MOST_STEPS, size: int = MOST_BYTES, seconds: float = MOST_SECONDS
    ) -> None:
        self._what = what
        self._steps = steps
        self._bytes = size
        self._cpu_deadline = time.thread_time() + seconds
        self._deadline = time.monotonic() + _BLOCKED_FACTOR * seconds
        self._next_check = max(0, steps - _STEPS_PER_CHECK)

    def step(self, count: int = 1) -> None:
        """Spend steps."""
        self._steps -= count
        if self._steps < self._next_check:
            self._check_clock()

    def take(self, size: int) -> None:
        """Spend bytes; ask before they are read or made room for."""
        self._bytes -= size
        if size < 0 or self._bytes < 0:
            raise self._exceeded("bytes")
        self.step()
        if size > _LARGE:
            self._check_clock()

    def _check_clock(self) -> None:
        if self._steps < 0:
            raise self._exceeded("entries")
        if time.thread_time() > self._cpu_deadline or time.monotonic() > self._deadline:
            raise self._exceeded("time to read")
        self._next_check = max(0, self._steps - _STEPS_PER_CHECK)

    def _exceeded(self, of_what: str) -> ImplausibleTargetError:
        return ImplausibleTargetError(
            f"{self._what}: more {of_what} than any program has; its structures are damaged, or made to mislead",
            "if this is a program of yours, please report it",
        )
