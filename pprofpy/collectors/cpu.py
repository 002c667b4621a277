"""Where a process spends CPU time: what can be asked for, and the engines that can answer.

An engine is a module with `record(target, options, stop, progress) -> Profile`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from pprofpy.errors import UsageError
from pprofpy.profile import Profile
from pprofpy.target import Target
from pprofpy.units import NS_PER_S, format_duration

ENGINES = {"py-spy": "pprofpy.collectors.pyspy.recorder"}
"""Engine -> module, best first: `auto` takes the first."""

MAX_RATE_HZ = 10_000
MAX_DURATION_NS = 7 * 24 * 3600 * NS_PER_S
FOREVER = None
"""As a duration: until the target ends or the user stops the recording."""

Progress = Callable[[int], None]
"""Called now and then with the nanoseconds recorded so far."""


class Stop(Protocol):
    """Tells an engine to end early; `threading.Event` is one."""

    def wait(self, timeout: float) -> bool:
        """Sleep until told to stop, `timeout` seconds at most; True if told."""


@dataclass(frozen=True, slots=True)
class CpuOptions:
    """What to record.

    Attributes:
        rate_hz: Looks per second.
        duration_ns: How long; FOREVER for as long as the target lives.
        native: Show C, C++ and Rust frames too.
        gil: Count only threads that hold the interpreter lock.
        idle: Count waiting threads too: wall-clock time instead of CPU time.
        subprocesses: Follow child processes.
        nonblocking: Never pause the target; some stacks will be torn.
    """

    rate_hz: int = 100
    duration_ns: int | None = 30 * NS_PER_S
    native: bool = False
    gil: bool = False
    idle: bool = False
    subprocesses: bool = False
    nonblocking: bool = False

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: A value is out of range, or two contradict each other.
        """
        if not 1 <= self.rate_hz <= MAX_RATE_HZ:
            raise UsageError(
                f"a rate of {self.rate_hz} looks per second is out of range",
                f"choose 1 to {MAX_RATE_HZ}; 100 is usual, 1000 costs the target noticeably more",
            )
        if self.duration_ns is not FOREVER and not 0 < self.duration_ns <= MAX_DURATION_NS:
            raise UsageError(
                f"a duration of {format_duration(self.duration_ns)} is out of range",
                "choose more than nothing and at most a week: -d 30, -d 500ms, -d 2m",
            )
        if self.native and self.nonblocking:
            raise UsageError("--native must pause the target, which --nonblocking forbids", "leave one of them out")
        if self.gil and self.idle:
            raise UsageError("--gil counts only running threads, --idle waiting ones too", "leave one of them out")


class Engine(Protocol):
    """A module that records."""

    def record(self, target: Target, options: CpuOptions, stop: Stop, progress: Progress) -> Profile:
        """Record until the duration is over, the target ends or `stop` says so."""


def record(engine: str, target: Target, options: CpuOptions, stop: Stop, progress: Progress) -> Profile:
    """Record a CPU profile.

    Args:
        engine: One of ENGINES, or "auto".
        target: The process.
        options: What to record.
        stop: Ends the recording early; what was recorded is returned.
        progress: Told how far we are.

    Raises:
        UsageError: The options make no sense.
        TargetError: The target ended before anything was recorded.
        NotPossibleError: A tool or privilege is missing.
    """
    options.check()
    name = next(iter(ENGINES)) if engine == "auto" else engine
    return cast(Engine, import_module(ENGINES[name])).record(target, options, stop, progress)
