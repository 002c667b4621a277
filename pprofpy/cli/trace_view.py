"""What `pprofpy trace` shows of events, live or saved."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from pprofpy.cli.console import print_data, stdout_console
from pprofpy.cli.view import print_json
from pprofpy.events.log import Batch, EventLog, EventSummary
from pprofpy.events.words import Narrator
from pprofpy.reports import trace_lines, trace_summary


@dataclass(slots=True)
class EventView:
    """Show events, live or saved.

    Attributes:
        lines: Show each event.
        with_summary: Sum up at the end.
        as_json: Print JSON.
        most: Show at most this many events (0: all).
        is_wanted: Which batches' events to show (a recording may hold more than was asked for).
    """

    lines: bool
    with_summary: bool
    as_json: bool
    most: int
    is_wanted: Callable[[Batch], Batch] = lambda batch: batch
    shown: int = 0
    _printer: trace_lines.LinePrinter | None = None
    _narrator: Narrator | None = None

    def begin(self, log: EventLog) -> None:
        """Prepare for this log; call it before the first batch."""
        self._narrator = Narrator(log)
        self._printer = trace_lines.LinePrinter(stdout_console())

    @property
    def is_full(self) -> bool:
        """Have as many events been shown as were asked for?"""
        return bool(self.most) and self.shown >= self.most

    def show(self, batch: Batch) -> None:
        """Print events."""
        if not self.lines or self._narrator is None or self._printer is None:
            self.shown += len(batch)
            return
        lines = self._narrator.lines(self.is_wanted(batch))
        lines = lines[: self.most - self.shown] if self.most else lines
        self.shown += len(lines)
        if self.as_json:
            for one in lines:
                print_data(trace_lines.to_json(one), indent=None)
        else:
            self._printer.print(lines)
        sys.stdout.flush()

    def sum_up(self, summary: EventSummary) -> None:
        """Print the summary."""
        report = trace_summary.build(summary, 0 if self.as_json else trace_summary.DEFAULT_THREADS)
        if self.as_json:
            print_json("trace-summary", trace_summary.to_json(report))
        else:
            trace_summary.render(report, stdout_console())
