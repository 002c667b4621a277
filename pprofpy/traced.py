"""Events for the library: windows with each event in words and their sums; the events themselves go to a file."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from pprofpy.collectors.trace import EventRecorder, TraceOptions
from pprofpy.events.event_profile import EventSums
from pprofpy.events.log import Batch
from pprofpy.events.words import Narrator, TracedEvent
from pprofpy.formats import eventlog
from pprofpy.formats.output import writing
from pprofpy.model.recording import Recording
from pprofpy.model.table import Table
from pprofpy.session import Recorder
from pprofpy.target import Target
from pprofpy.text import counted

MOST_EVENTS = 100_000
"""In words, a window has at most this many; a file has all."""


class TracedRecorder(Recorder):
    """Records events, to a file as they come.

    Args:
        options: Which, and whose.
        path: The file; none if empty.
        force: Replace a file that pprofpy did not write.
    """

    kind = "trace"

    def __init__(self, options: TraceOptions, path: str, *, force: bool) -> None:
        super().__init__()
        self._events = EventRecorder(options)
        self._path, self._force = path, force
        self._writer: eventlog.EventWriter | None = None
        self._lines: list[TracedEvent] = []
        self._missing = 0

    def open(self) -> None:
        """Open the file, then the probes."""
        stream = None
        if self._path:
            stream = self.owned.enter_context(writing(Path(self._path), force=self._force, keep_parts=True))
        self.owned.enter_context(self._events)
        self._log = self._events.log
        self._writer = eventlog.EventWriter(stream, self._log) if stream else None
        self._sums, self._narrator = EventSums(self._log), Narrator(self._log)
        self._told_ns = self._log.start_ns

    def watch(self, target: Target) -> None:
        """Watch a process from now on."""
        self._events.watch(target)

    def enter(self, pid: int) -> None:
        """Watch a process of a control group."""
        self._events.enter(pid)

    def leave(self, pid: int) -> None:
        """Watch it no more."""
        self._events.leave(pid)

    def followed(self) -> set[int]:
        """As a recorder says it."""
        return self._events.followed()

    def poll(self) -> None:
        """Take what is new, and write it to the file."""
        for batch in self._events.read():
            if self._writer:
                self._writer.add(batch)
            self._sums.add(batch)
            self._note(batch)

    def _note(self, batch: Batch) -> None:
        lines = self._narrator.lines(batch)
        room = max(MOST_EVENTS - len(self._lines), 0)
        self._lines += lines[:room]
        self._missing += len(lines[room:])

    def window(self) -> Recording:
        """Return the events since the last window."""
        self.poll()
        return self._take(time.monotonic_ns())

    def finish(self) -> Recording:
        """End the recording and the file; return the events since the last window."""
        self._events.finish()
        self.poll()
        if self._writer:
            self._writer.end(self._events.duration_ns, self._events.collected())
        return self._take(self._log.start_ns + self._events.duration_ns)

    def _take(self, end_ns: int) -> Recording:
        began_ns, self._told_ns = self._told_ns, end_ns
        collection = self._events.collected_since()
        if self._missing:
            verb = "is" if self._missing == 1 else "are"
            note = (
                f"{counted(self._missing, 'event')} of this window {verb} only in the sums and in the file: too many."
            )
            collection = replace(collection, notes=(*collection.notes, note))
        profile = self._sums.take(self._log.time_ns + began_ns - self._log.start_ns, end_ns - began_ns, collection)
        lines, self._lines, self._missing = self._lines, [], 0
        return Recording(self.kind, profile, {"events": Table.of(TracedEvent, lines)})
