"""Reads that others can make wait for ever, done by threads that can be left behind.

Memory that a program serves itself (userfaultfd), files of a FUSE server, of a network server that is gone: who reads
these sleeps in the kernel until their server pleases, and no signal but SIGKILL ends that sleep. So such reads are done
by a thread of their own, while the one that wants the answer waits for so long and no longer, and stays open to Ctrl-C.
A reader that was left behind ends with its sleep, or with us. (eBPF programs need none of this: what they read of a
process is what is in memory, they never fetch a page.)

Handing over takes some 20 us. Whoever reads much makes one reading of it: within one, further ones cost nothing.
"""

from __future__ import annotations

import _thread
import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from pprofpy.errors import ImplausibleTargetError, NotPossibleError
from pprofpy.system import interrupts

LONGEST_S = 4.0
"""How long the readings of one subject may sleep, all together. The more subjects are stuck, the less is the next one
given, so that many of them do not keep us longer than twice as long."""

_SHORTEST_S, _AFTER_CTRL_C_S = 0.1, 0.3
_SLICE_S = 0.05
_ASLEEP = (b"S", b"D")

_T = TypeVar("_T")
_here = threading.local()
_idle: list[_Reader] = []
_slept_s: dict[str, float] = {}
_stuck: dict[str, Reading[Any]] = {}


class BlockedError(TimeoutError):
    """Something cannot be read: it did not answer in time."""

    def __init__(self, subject: str) -> None:
        what = f"{subject} does not let itself be read: its memory or a file system that it uses does not answer"
        super().__init__(errno.ETIMEDOUT, what)

    def __str__(self) -> str:
        return str(self.strerror)

    def as_error(self) -> ImplausibleTargetError:
        """Return it as an error for the user."""
        return ImplausibleTargetError(str(self), "its file servers (FUSE, NFS) must answer: 'findmnt' lists them")


def bounded(subject: str, read: Callable[[], _T]) -> _T:
    """What `read` returns or raises, if that takes no longer than it may.

    Time that it spends computing, or waiting for a processor, does not count.

    Args:
        subject: Whose data it is, as in "process 12". Once it has not answered, it is not asked again until it has.
        read: Does the reading. It may be left behind half-way, and go on later: it must change nothing but what it
            returns. Another thread does it: what belongs to a thread, as the user that it acts for, it sets up itself.

    Raises:
        BlockedError: It sleeps for too long.
        NotPossibleError: There can be no more threads.
    """
    if getattr(_here, "is_reader", False):
        return read()
    reading = Reading(subject, read)
    reader = _take_reader()
    reader.do(reading)
    try:
        return reading.result(lambda: reader.tid)
    finally:
        if not reading.is_left:  # it is free again, even if the reading failed
            _idle.append(reader)


def dismiss_readers() -> None:
    """End the threads that are idle: they have the privileges with which they were started."""
    while _idle:
        _idle.pop().end()


os.register_at_fork(after_in_child=_idle.clear)


class Reading(Generic[_T]):
    """One reading: done by one thread, for another that may have gone.

    Args:
        subject, read: See `bounded`.

    Raises:
        BlockedError: The subject has not answered yet since it last did not.
    """

    def __init__(self, subject: str, read: Callable[[], _T]) -> None:
        _check_answers(subject)
        self._subject, self._read = subject, read
        self._results: list[_T] = []
        self._error: BaseException | None = None
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        self.is_done = False
        self.is_left = False

    def do(self) -> None:
        """Read; called by the thread that may be left behind, for which further readings are part of this one."""
        _here.is_reader = True
        try:
            self._results.append(self._read())
        except BaseException as error:  # raised where somebody waits for it
            self._error = error
        self.is_done = True
        self._ended.release()

    def wait(self, seconds: float) -> bool:
        """Return True once it has been done."""
        return self.is_done or self._ended.acquire(timeout=seconds)

    def result(self, reader: Callable[[], int]) -> _T:
        """Wait for it, and return or raise what the reading did.

        Args:
            reader: Returns the tid of the thread that does it; 0 if it has not begun.

        Raises:
            BlockedError: It sleeps for too long.
        """
        try:
            self._wait(reader)
        except BaseException:
            self.is_left = True
            raise
        if self._error:
            raise self._error
        return self._results[0]

    def _wait(self, reader: Callable[[], int]) -> None:
        longest_s = max(_SHORTEST_S, LONGEST_S / 2 ** len(_stuck))
        while not self.wait(_SLICE_S):
            if not _is_asleep(reader()):
                continue
            slept_s = _slept_s[self._subject] = _slept_s.get(self._subject, 0) + _SLICE_S
            if slept_s > longest_s or (interrupts.has_asked() and slept_s > _AFTER_CTRL_C_S):
                _stuck[self._subject] = self
                raise BlockedError(self._subject)


def _check_answers(subject: str) -> None:
    last = _stuck.get(subject)
    if last and not last.is_done:
        raise BlockedError(subject)
    if last:  # it answers again, perhaps after days
        del _stuck[subject]
        _slept_s.pop(subject, None)


class _Reader:
    """A thread that reads, until one of its readings is left behind."""

    def __init__(self) -> None:
        self._readings: SimpleQueue[Reading[Any] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pprofpy reader", daemon=True)
        self._thread.start()

    @property
    def tid(self) -> int:
        return self._thread.native_id or 0

    def do(self, reading: Reading[Any]) -> None:
        self._readings.put(reading)

    def end(self) -> None:
        self._readings.put(None)
        self._thread.join(1)

    def _run(self) -> None:
        while reading := self._readings.get():
            reading.do()
            if reading.is_left:
                return


def _take_reader() -> _Reader:
    with suppress(IndexError):
        return _idle.pop()
    try:
        return _Reader()
    except RuntimeError as error:
        raise NotPossibleError("no more threads can be started", "raise the limit: ulimit -u unlimited") from error


def _is_asleep(tid: int) -> bool:
    """Does this thread of ours wait for something else than a processor?"""
    try:
        return Path(f"/proc/self/task/{tid}/stat").read_bytes().rpartition(b") ")[2][:1] in _ASLEEP
    except OSError:
        return False
