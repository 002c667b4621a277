"""The heap of a running process: what can be asked for, and how a recording goes.

Two engines: `sampling` (see heapagent/sampler.c) and `tracemalloc`. Both see only what is allocated from their start
on, unless the target traced before.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pprofpy.collectors.attach import CodeError
from pprofpy.collectors.heapagent import plain
from pprofpy.collectors.heapagent.engines import Engine, Progress, choose
from pprofpy.collectors.heapagent.memory import measure
from pprofpy.collectors.heapagent.session import BusyError, Session
from pprofpy.errors import NotPossibleError, PprofpyError, TargetError, UsageError
from pprofpy.heap import HeapRecording, ObjectType
from pprofpy.profile import Profile
from pprofpy.target import Target, open_target
from pprofpy.units import NS_PER_S, format_duration

ENGINES = ("sampling", "tracemalloc")
FOREVER = None
MAX_DURATION_NS = 7 * 24 * 3600 * NS_PER_S
DEFAULT_SAMPLE_BYTES = 512 << 10

_TICK_S = 0.05
_STARTING_S, _CLEARING_S = 3.0, 3.0
_TYPES, _EXAMPLES, _REFERRERS = 20, 20, 3
_CLASS = re.compile(r"<class '(.*)'>", re.DOTALL)
_MOST_FRAMES = 256


class Stop(Protocol):
    """Tells a recording to end early; `threading.Event` is one."""

    def wait(self, timeout: float) -> bool:
        """Sleep until told to stop, `timeout` seconds at most; True if told."""


@dataclass(frozen=True, slots=True)
class HeapOptions:
    """What to record.

    Attributes:
        engine: One of ENGINES, or "auto".
        duration_ns: How long; FOREVER for as long as the target lives.
        sample_bytes: The sampler takes one sample in so many bytes, on average.
        frames: At most so many frames of each stack; 0 for what is usual with the engine.
        snapshots: So many, evenly spaced, the last one at the end.
        collect: Let the garbage collector run before each snapshot.
        types: Also look for the types with the biggest objects.
    """

    engine: str = "auto"
    duration_ns: int | None = 30 * NS_PER_S
    sample_bytes: int = DEFAULT_SAMPLE_BYTES
    frames: int = 0
    snapshots: int = 1
    collect: bool = False
    types: bool = False

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: A value is out of range, or two contradict each other.
        """
        if self.duration_ns is not FOREVER and not 0 < self.duration_ns <= MAX_DURATION_NS:
            raise UsageError(
                f"a duration of {format_duration(self.duration_ns)} is out of range",
                "choose more than nothing and at most a week: -d 30, -d 500ms, -d 2m",
            )
        if not 1 <= self.sample_bytes <= 1 << 34:
            raise UsageError("a sample in so many bytes is out of range", "512k is usual, 64k finer and dearer")
        if not 0 <= self.frames <= _MOST_FRAMES:
            raise UsageError(f"{self.frames} frames are out of range", f"choose 1 to {_MOST_FRAMES}")
        if self.snapshots < 1:
            raise UsageError("there is at least one snapshot", "choose --snapshots 5 to see what grows")
        if self.snapshots > 1 and self.duration_ns is FOREVER:
            raise UsageError("snapshots are spaced evenly over a given time", "add --duration")


def record(
    target: Target,
    options: HeapOptions,
    stop: Stop,
    progress: Callable[[int], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
    fetching: Progress = lambda _done, _count: None,
) -> HeapRecording:
    """Record a heap.

    Args:
        target: The process.
        options: What to record.
        stop: Ends the recording early; what was recorded is returned.
        progress: Told the nanoseconds recorded so far.
        warn: Told what the user should know before it begins.
        fetching: Told how many traces of tracemalloc's are fetched, and how many there are (0: not known yet).

    Raises:
        UsageError: The options make no sense.
        TargetError: The target ended before anything was recorded.
        NotPossibleError: A privilege is missing, or the engine cannot work there.
    """
    options.check()
    with _open(target) as session:
        engine = choose(options.engine, session, options.sample_bytes, options.frames, warn, fetching)
        try:
            engine.start()
        except CodeError as error:
            raise _explained(error, target) from error
        return _Recording(session, engine, options).run(stop, progress)


def _open(target: Target) -> Session:
    """Open the agent. An earlier recording gets time to be cleared away, a process to become an interpreter."""
    begin = time.monotonic()
    while True:
        try:
            return Session(target)
        except BusyError:
            if time.monotonic() - begin > _CLEARING_S:
                raise
        except NotPossibleError:
            if target.age_s() > _STARTING_S or time.monotonic() - begin > _STARTING_S:
                raise
            target = open_target(target.pid)  # it has loaded more by now, perhaps the interpreter itself
        time.sleep(_TICK_S)


class _Recording:
    """One recording, from the engine's start to its stop."""

    def __init__(self, session: Session, engine: Engine, options: HeapOptions) -> None:
        self._session = session
        self._engine = engine
        self._options = options
        self._start_ns, self._time_ns = time.monotonic_ns(), time.time_ns()
        self._snapshots: list[tuple[int, Profile]] = []

    def run(self, stop: Stop, progress: Callable[[int], None]) -> HeapRecording:
        try:
            self._wait(stop, progress)
            self._snapshot()
            self._engine.stop()
            recording = HeapRecording.of(self._snapshots)
            self._look_beside(recording)
        except PprofpyError:
            if self._session.target.is_alive():
                raise
            recording = self._after_its_end()
        return recording

    def _wait(self, stop: Stop, progress: Callable[[int], None]) -> None:
        """Until the time is over, or somebody says so; takes the snapshots that are due before the last one."""
        options = self._options
        while not stop.wait(_TICK_S):
            elapsed_ns = time.monotonic_ns() - self._start_ns
            progress(elapsed_ns)
            if not self._session.target.is_alive():
                raise TargetError("it has ended")
            if options.duration_ns is FOREVER:
                continue
            if elapsed_ns >= options.duration_ns:
                return
            if elapsed_ns * options.snapshots >= options.duration_ns * (len(self._snapshots) + 1):
                self._snapshot()

    def _snapshot(self) -> None:
        elapsed_ns = time.monotonic_ns() - self._start_ns
        self._keep(self._engine.read(collect=self._options.collect), elapsed_ns)

    def _keep(self, profile: Profile, elapsed_ns: int) -> None:
        profile.time_ns, profile.duration_ns = self._time_ns, elapsed_ns
        profile.default_sample_type = "inuse_space"
        self._snapshots.append((elapsed_ns, profile))

    def _look_beside(self, recording: HeapRecording) -> None:
        """What is not the engine's: the process's memory, and types."""
        text, in_use = self._session.call("memory()", str, int)
        recording.memory = measure(self._session.target.pid, (text, in_use))
        if self._options.types:
            said = plain.only(self._session.say(f"objects({_TYPES}, {_EXAMPLES})"))
            count, rows = plain.fields(said, int, list)
            recording.objects_count = plain.count(count)
            recording.types = tuple(_object_type(*row) for row in plain.rows(rows, str, int, int, list, most=_TYPES))

    def _after_its_end(self) -> HeapRecording:
        """The target has ended: what it left us, else the last snapshot."""
        elapsed_ns = time.monotonic_ns() - self._start_ns
        if (profile := self._engine.last_words()) is not None:
            self._keep(profile, elapsed_ns)
        if not self._snapshots:
            raise TargetError(
                f"process {self._session.target.pid} ended before its heap could be read",
                "record for a shorter time; a process that is killed can tell nothing",
            )
        return HeapRecording.of(self._snapshots)


def _explained(error: CodeError, target: Target) -> PprofpyError:
    """What the agent could not do, in words for the user."""
    reason = error.traceback.strip().rpartition("\n")[2]
    kind, _, what = reason.partition(": ")
    if kind not in ("RuntimeError", "ImportError", "OSError", "PermissionError"):
        return error
    return NotPossibleError(
        f"the sampler cannot work in {target}, {target.interpreter}: {what}", "use --engine tracemalloc"
    )


def _object_type(name: str, count: int, size: int, referrers: list[Any]) -> ObjectType:
    found = plain.rows(referrers, str, int, most=_REFERRERS)
    named = tuple((_type_name(who), plain.count(often)) for who, often in found)
    return ObjectType(_type_name(name), plain.count(count), plain.count(size), named)


def _type_name(text: str) -> str:
    """`<class 'shop.Order'>` without its frame."""
    match = _CLASS.fullmatch(text)
    return match[1] if match else text
