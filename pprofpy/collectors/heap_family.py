"""The heaps of several processes in one recording: those that are named, and what they start.

Each has an agent of its own. What a process has allocated bears its pid as a label.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

from pprofpy.collectors.heap import HeapOptions, HeapRecorder
from pprofpy.errors import PprofpyError, TargetError, UsageError
from pprofpy.model.heap import HeapRecording, at_once, freed, merge_processes
from pprofpy.model.profile import Profile
from pprofpy.model.recording import Recording
from pprofpy.session import Recorder
from pprofpy.target import Group, Target, descendants_of, open_target
from pprofpy.target.group import some_of
from pprofpy.units import NS_PER_S

_LOOK_NS = NS_PER_S
"""How often children are looked for, and how old they must be: most of those that end soon are left alone."""

_MOST_PROBLEMS = 3
"""So many are told of."""

_MOST_ENDED = 64
"""One more, and the older half of them is no longer told apart: a service may start others for ever."""


def check_for_several(options: HeapOptions) -> None:
    """Refuse what can only be said of one process.

    Raises:
        UsageError: Such a thing is among the options.
    """
    for name, is_asked in ("--types", options.types), ("--snapshots", options.snapshots > 1):
        if is_asked:
            raise UsageError(f"{name} looks into one process", "leave out --subprocesses, and name it with --pid")


class HeapFamily(Recorder):
    """The heaps of processes and of their children, from `watch` on; of a child from a second after its start on.

    Args:
        options: What to record, of each process.
        warn: Told what the user should know before it begins.

    Raises:
        UsageError: The options make no sense for several processes.
    """

    kind = "heap"

    def __init__(self, options: HeapOptions, warn: Callable[[str], None] = lambda _: None) -> None:
        super().__init__()
        check_for_several(options)
        self._options, self._warn = options, warn
        self._roots: list[Target] = []
        self._living: dict[int, tuple[Target, HeapRecorder]] = {}
        self._ended: dict[int, Profile] = {}
        self._older: list[Profile] = []
        self._ended_count = 0
        self._known: set[int] = set()
        self._problems: list[str] = []
        self._looked_ns = 0
        self._since = ""

    def open(self) -> None:
        """Nothing yet. Each process's agent is closed when that process ends, the others when this is closed."""
        self.owned.callback(self._close_living)

    def _close_living(self) -> None:
        with ExitStack() as closing:
            for _, recorder in self._living.values():
                closing.callback(recorder.close)

    def watch(self, target: Target) -> None:
        """Enter a process, if it is Python, and what it has started.

        Raises:
            TargetError: It has ended.
            NotPossibleError: It is Python and cannot be recorded.
        """
        self._roots.append(target)
        if target.is_python:
            self._enter(target)
        self._look_for_children(youngest_s=0)

    def poll(self) -> None:
        """Let go of processes that have ended, and enter new ones."""
        self._let_go()
        if time.monotonic_ns() - self._looked_ns >= _LOOK_NS:
            self._look_for_children(youngest_s=_LOOK_NS / NS_PER_S)

    def window(self) -> Recording:
        """All so far, of all processes."""
        self._let_go()
        return self._merged(self._read(lambda one: one.window()))

    def finish(self) -> Recording:
        """The whole.

        Raises:
            TargetError: No process could be read.
        """
        return self._merged(self._read(lambda one: one.finish()))

    def _read(self, read: Callable[[HeapRecorder], Recording]) -> dict[int, HeapRecording]:
        found = {}
        for target, recorder in self._living.values():
            with self._noting(target):
                found[target.pid] = HeapRecording.from_recording(read(recorder))
        return found

    # -- who is in it ----------------------------------------------------------------------------------------------

    def _look_for_children(self, *, youngest_s: float) -> None:
        self._looked_ns = time.monotonic_ns()
        found = {pid for root in self._roots for pid in descendants_of(root.pid)}
        self._known &= found  # a number that is free may be another's later
        for pid in sorted(found - self._known):
            with suppress(PprofpyError):  # it has ended
                child = open_target(pid)
                if child.age_s() >= youngest_s:
                    self._known.add(pid)
                    self._enter_child(child)

    def _enter_child(self, child: Target) -> None:
        if child.is_python:
            with self._noting(child):
                self._enter(child)

    def _enter(self, target: Target) -> None:
        recorder = HeapRecorder(self._options, self._warn)
        try:
            recorder.open()
            recorder.watch(target)
        except BaseException:
            recorder.close()
            raise
        self._since = self._since or recorder.since
        self._living[target.pid] = target, recorder

    def _let_go(self) -> None:
        for target, recorder in list(self._living.values()):
            if not target.is_alive():
                self._end(target, recorder)

    def _end(self, target: Target, recorder: HeapRecorder) -> None:
        """Keep what a process has left that is over: it holds nothing any more."""
        del self._living[target.pid]
        with self._noting(target):
            self._ended[target.pid] = freed(recorder.finish().profile)
            self._ended_count += 1
        recorder.close()
        if len(self._ended) > _MOST_ENDED:
            oldest = [self._ended.pop(pid) for pid in list(self._ended)[: _MOST_ENDED // 2]]
            self._older = [at_once([*self._older, *oldest])]

    @contextmanager
    def _noting(self, target: Target) -> Iterator[None]:
        """Within it, what goes wrong with one process becomes a note: the others go on."""
        try:
            yield
        except PprofpyError as error:
            if len(self._problems) < _MOST_PROBLEMS:
                self._problems.append(f"Process {target.pid} is not in it: {error.message}.")

    # -- all of them ------------------------------------------------------------------------------------------------

    def _merged(self, living: dict[int, HeapRecording]) -> Recording:
        if not living and not self._ended:
            problem = self._problems[0] if self._problems else "there was none"
            raise TargetError(
                f"the heap of no Python process could be read ({problem})",
                "record each by itself: pprofpy heap --pid PID",
            )
        found = merge_processes(living, self._ended, self._older)
        profile = found.profile
        notes = (*profile.collection.notes, *self._notes(living))
        profile.collection = replace(profile.collection, target=f"{self._who()}, {self._since}", notes=notes)
        return found.to_recording({})

    def _who(self) -> str:
        return str(self._roots[0] if len(self._roots) == 1 else Group(tuple(self._roots)))

    def _notes(self, living: Iterable[int]) -> list[str]:
        notes = [f"The label pid tells them apart: {some_of(sorted({*living, *self._ended}))}."]
        if count := self._ended_count:
            processes = f"{count:,} processes" if count > 1 else "1 process"
            notes.append(f"{processes} ended meanwhile: what was allocated there counts as allocated, not as in use.")
        if self._older:
            notes.append(f"The first {count - len(self._ended):,} of these have no label pid: they are too many.")
        return notes + self._problems
