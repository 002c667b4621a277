"""The heap of a running process: what can be asked for, and how a recording goes.

Two engines: `sampling` (see heapagent/sampler) and `tracemalloc`. Both see only what is allocated from their start
on, unless the target traced before.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pprofpy.collectors.attach import CodeError
from pprofpy.collectors.heapagent import plain
from pprofpy.collectors.heapagent.engines import Progress, choose
from pprofpy.collectors.heapagent.link import Agent, BusyError
from pprofpy.collectors.heapagent.memory_use import measure
from pprofpy.errors import NotPossibleError, PprofpyError, TargetError, UsageError
from pprofpy.model.heap import HeapRecording, ObjectType, Snapshots
from pprofpy.model.profile import Profile
from pprofpy.model.recording import Recording
from pprofpy.session import FOREVER, Recorder
from pprofpy.target import Target, open_target
from pprofpy.units import NS_PER_S, format_duration

ENGINES = ("sampling", "tracemalloc")
MAX_DURATION_NS = 7 * 24 * 3600 * NS_PER_S
DEFAULT_SAMPLE_BYTES = 512 << 10

_TICK_S = 0.05
_STARTING_S, _CLEARING_S = 3.0, 3.0
_TYPES, _HOLDERS = 20, 3
_READ_SHARE, _WAITING = 50, 50
"""Reading a heap may take a fiftieth of our CPU time; on a busy machine, nearly all of its time goes by in waiting."""

_CLASS = re.compile(r"<class '(.*)'>", re.DOTALL)
_MOST_FRAMES = 256


@dataclass(frozen=True, slots=True)
class HeapOptions:
    """What to record.

    Attributes:
        engine: One of ENGINES, or "auto".
        duration_ns: How long; FOREVER for as long as the target lives.
        sample_bytes: The mean number of allocated bytes between two samples (sampling).
        frames: Keep at most this many frames of a stack; 0: the engine's default.
        snapshots: The number of snapshots, evenly spaced, the last one at the end.
        collect: Run the garbage collector before each snapshot.
        types: Find the types that hold most memory.
    """

    engine: str = "auto"
    duration_ns: int | None = 30 * NS_PER_S
    sample_bytes: int = DEFAULT_SAMPLE_BYTES
    frames: int = 0
    snapshots: int = 1
    collect: bool = False
    types: bool = False

    def check(self) -> None:
        """Refuse values out of range and contradictions.

        Raises:
            UsageError: A value is out of range, or two contradict each other.
        """
        if self.duration_ns is not FOREVER and not 0 < self.duration_ns <= MAX_DURATION_NS:
            raise UsageError(
                f"a duration of {format_duration(self.duration_ns)} is out of range",
                "choose more than 0 and at most a week: -d 30, -d 500ms, -d 2m",
            )
        if not 1 <= self.sample_bytes <= 1 << 34:
            raise UsageError(
                "--sample-bytes is out of range (1 byte to 16 GiB)",
                "choose 512k, or 64k for finer estimates at a higher cost",
            )
        if not 0 <= self.frames <= _MOST_FRAMES:
            raise UsageError(f"{self.frames} frames are out of range", f"choose 1 to {_MOST_FRAMES}")
        if self.snapshots < 1:
            raise UsageError("--snapshots must be 1 or more", "choose --snapshots 5 to see what grows")
        if self.snapshots > 1 and self.duration_ns is FOREVER:
            raise UsageError("--snapshots needs a duration: snapshots are spaced evenly", "add --duration")


def _open(target: Target) -> Agent:
    """Open the agent. An earlier recording gets time to be cleared away, a process to become an interpreter."""
    begin = time.monotonic()
    while True:
        try:
            return Agent(target)
        except BusyError:
            if time.monotonic() - begin > _CLEARING_S:
                raise
        except NotPossibleError:
            if target.age_s() > _STARTING_S or time.monotonic() - begin > _STARTING_S:
                raise
            target = open_target(target.pid)  # it has loaded more by now, perhaps the interpreter itself
        time.sleep(_TICK_S)


class HeapRecorder(Recorder):
    """The heap of one process, from `watch` on.

    A window holds all since the beginning: what is in use now, and what was allocated so far.

    Args:
        options: What to record.
        warn: Told what the user should know before it begins.
        fetching: Told how many traces of tracemalloc's are fetched, and how many there are (0: not known yet).

    Attributes:
        first_snapshot: What was in use at the first snapshot; None before.

    Raises:
        UsageError: The options make no sense.
    """

    kind = "heap"

    def __init__(
        self,
        options: HeapOptions,
        warn: Callable[[str], None] = lambda _: None,
        fetching: Progress = lambda _done, _count: None,
    ) -> None:
        super().__init__()
        options.check()
        self._options = options
        self._warn, self._fetching = warn, fetching
        self.first_snapshot: Profile | None = None
        self._latest: Profile | None = None
        self._new = Snapshots()
        self._snapshots = 0
        self._read_ns = self._read_at_ns = 0

    def watch(self, target: Target) -> None:
        """Open the agent in the process and start the engine.

        Raises:
            TargetError: It has ended.
            NotPossibleError: A privilege is missing, or the engine cannot work there.
        """
        options = self._options
        self._agent = self.owned.enter_context(_open(target))
        self._engine = choose(
            options.engine, self._agent, options.sample_bytes, options.frames, self._warn, self._fetching
        )
        try:
            self._engine.start()
        except CodeError as error:
            raise _explained(error, target, options.engine) from error
        self._start_ns, self._time_ns = time.monotonic_ns(), time.time_ns()

    @property
    def since(self) -> str:
        """From when on the heap is seen, in words."""
        return self._engine.since

    def poll(self) -> None:
        """Take the snapshots that are due before the last one."""
        options, elapsed_ns = self._options, time.monotonic_ns() - self._start_ns
        due_ns = (options.duration_ns or 0) * (self._snapshots + 1) // options.snapshots
        if options.duration_ns is not None and due_ns <= elapsed_ns < options.duration_ns:
            self._take_snapshot()

    def window(self) -> Recording:
        """All so far. A heap that takes long to read is read less often: one fiftieth of the time at most."""
        if time.monotonic_ns() - self._read_at_ns > _READ_SHARE * self._read_ns:
            self._read()
        return self._found().to_recording({})

    def finish(self) -> Recording:
        """The whole; if the process has ended, what it left us, else the last snapshot.

        Raises:
            TargetError: The target ended before its heap was read.
        """
        try:
            self._take_snapshot()
            self._engine.stop()
            found = self._found()
            self._look_beside(found)
        except PprofpyError:
            if self._agent.target.is_alive():
                raise
            found = self._after_its_end()
        return found.to_recording({})

    def _take_snapshot(self) -> None:
        profile = self._read()
        self._snapshots += 1
        if self.first_snapshot is None:
            self.first_snapshot = profile
        self._new.add(profile.duration_ns, profile)

    def _read(self) -> Profile:
        start_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        profile = self._keep(self._engine.read(collect=self._options.collect), start_ns)
        self._read_at_ns = time.monotonic_ns()
        self._read_ns = max(time.thread_time_ns() - cpu_ns, (self._read_at_ns - start_ns) // _WAITING)
        return profile

    def _keep(self, profile: Profile, now_ns: int) -> Profile:
        profile.time_ns, profile.duration_ns = self._time_ns, now_ns - self._start_ns
        profile.default_sample_type = "inuse_space"
        self._latest = profile
        return profile

    def _found(self) -> HeapRecording:
        """What is known now, with the snapshots since the last call."""
        if self._latest is None:
            raise TargetError(
                f"process {self._agent.target.pid} ended before its heap could be read",
                "record for a shorter time; a process that is killed can tell nothing",
            )
        new, self._new = self._new, Snapshots()
        return HeapRecording(self._latest, new)

    def _look_beside(self, found: HeapRecording) -> None:
        """What is not the engine's: the process's memory, and types."""
        text, in_use = self._agent.call("memory()", str, int)
        found.memory = measure(self._agent.target.pid, (text, in_use))
        if self._options.types:
            said = plain.only(self._agent.say(f"objects({_TYPES})"))
            count, rows = plain.fields(said, int, list)
            found.objects_count = plain.count(count)
            found.types = tuple(_object_type(*row) for row in plain.rows(rows, str, int, int, list, most=_TYPES))

    def _after_its_end(self) -> HeapRecording:
        now_ns = time.monotonic_ns()
        if (profile := self._engine.last_words()) is not None:
            self._snapshots += 1
            self._new.add(now_ns - self._start_ns, self._keep(profile, now_ns))
        return self._found()


def _explained(error: CodeError, target: Target, engine: str) -> PprofpyError:
    """What the agent could not do, in words for the user."""
    reason = error.traceback.strip().rpartition("\n")[2]
    kind, _, what = reason.partition(": ")
    if kind not in ("RuntimeError", "ImportError", "OSError", "PermissionError"):
        return error
    other = "sampling" if engine == "tracemalloc" else "tracemalloc"
    return NotPossibleError(
        f"this engine cannot work in {target}, {target.interpreter}: {what}", f"use --engine {other}"
    )


def _object_type(name: str, count: int, size: int, holders: list[Any]) -> ObjectType:
    found = plain.rows(holders, str, int, most=_HOLDERS)
    named = tuple((who, plain.count(often)) for who, often in found)
    return ObjectType(_type_name(name), plain.count(count), plain.count(size), named)


def _type_name(text: str) -> str:
    """`<class 'shop.Order'>` without its frame."""
    match = _CLASS.fullmatch(text)
    return match[1] if match else text
