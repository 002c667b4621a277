"""What the recorders share that have a program in the kernel."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pprofpy.collectors.kernel.ids import ids_sizes, ids_values
from pprofpy.collectors.kernel.program import Program, load
from pprofpy.collectors.kernel.source import ProbeSource
from pprofpy.model.profile import Collection
from pprofpy.session import Recorder

_DRAIN_NS = 500_000_000
_NEVER_NS = 1 << 63
_U4, _U8 = np.dtype("u4"), np.dtype("u8")


class WindowTimes(NamedTuple):
    """When a window was.

    Attributes:
        start_ns: Its begin, on the monotonic clock.
        time_ns: The same moment in Unix time.
        duration_ns: Its length.
    """

    start_ns: int
    time_ns: int
    duration_ns: int


class KernelRecorder(Recorder):
    """A recorder with one program in the kernel, which sums up there what is moved out twice a second.

    Attributes:
        program: The program, once it is loaded.
        start_ns: When the recording began, on the monotonic clock.
        time_ns: The same moment in Unix time.
        window_start_ns: When the current window began, on the monotonic clock.
        end_ns: When the program ends the recording by itself, on the monotonic clock; far away if that is not known.
    """

    program: Program
    time_ns = window_start_ns = 0

    def __init__(self) -> None:
        super().__init__()
        self.end_ns = _NEVER_NS
        self._drained_ns = 0
        self._collected_before = Collection()

    def load(self, source: ProbeSource, values: Mapping[str, int], sizes: Mapping[str, int] | None = None) -> Program:
        """Load the program; it is taken out of the kernel when the recorder is closed. See `program.load`."""
        self.program = load(source, {**values, **ids_values()}, {**(sizes or {}), **ids_sizes()})
        self.remarks = self.program.remarks
        self.owned.callback(self.program.close)
        return self.program

    def end_at(self, end_ns: int) -> None:
        """Have the program end the recording at that time, however late we get a CPU to end it ourselves."""
        self.program.table("recording_end", _U4, _U8).put(0, end_ns)
        self.end_ns = end_ns

    def recorded_until_ns(self) -> int:
        """Up to when it has recorded, on the monotonic clock: now, or its end."""
        return min(time.monotonic_ns(), self.end_ns)

    def begin(self) -> None:
        """Begin the recording and its first window now."""
        self.start_ns, self.time_ns = time.monotonic_ns(), time.time_ns()
        self.window_start_ns = self.start_ns

    def begin_window(self, now_ns: int) -> WindowTimes:
        """Begin the next window at a time of the monotonic clock; return when the one before it was."""
        start_ns, self.window_start_ns = self.window_start_ns, now_ns
        return WindowTimes(start_ns, self.time_ns + start_ns - self.start_ns, now_ns - start_ns)

    def poll(self) -> None:
        """Take in what is new, and twice a second what the kernel has summed up."""
        self.take_new()
        now_ns = time.monotonic_ns()
        if now_ns - self._drained_ns >= _DRAIN_NS:
            self._drained_ns = now_ns
            self.drain()

    def take_new(self) -> None:
        """Take in what the kernel must not keep for long, such as new stacks."""

    def drain(self) -> None:
        """Move finished entries out of the kernel's tables, so that they stay small."""

    def collected(self) -> Collection:
        """How the whole recording came about so far; counts from its beginning on."""
        raise NotImplementedError

    def collected_since(self) -> Collection:
        """The same of this window alone. The next call tells of the next window."""
        now, before = self.collected(), self._collected_before
        self._collected_before = now
        return now.since(before)
