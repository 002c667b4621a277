"""What can be asked of a CPU recording, whichever engine makes it."""

from __future__ import annotations

from dataclasses import dataclass

from pprofpy.collectors.kernel.label_options import TASKS_ONLY, LabelOptions
from pprofpy.errors import UsageError
from pprofpy.session import FOREVER
from pprofpy.units import NS_PER_S, format_duration

MAX_RATE_HZ = 10_000
MAX_DURATION_NS = 7 * 24 * 3600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class CpuOptions:
    """What to record.

    Attributes:
        rate_hz: Samples per second.
        duration_ns: How long; FOREVER for as long as the target lives.
        native: Show C, C++ and Rust frames too.
        gil: Count only threads that hold the interpreter lock.
        idle: Count waiting threads too: wall-clock time instead of CPU time.
        subprocesses: Follow child processes.
        nonblocking: Never pause the target, even if some stacks are torn.
        kernel_stacks: Show what the kernel did for the target too.
        labels: What else to label samples with; asyncio tasks by default.
    """

    rate_hz: int = 100
    duration_ns: int | None = 30 * NS_PER_S
    native: bool = False
    gil: bool = False
    idle: bool = False
    subprocesses: bool = False
    nonblocking: bool = False
    kernel_stacks: bool = False
    labels: LabelOptions = TASKS_ONLY

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: A value is out of range, or two contradict each other.
        """
        if not 1 <= self.rate_hz <= MAX_RATE_HZ:
            raise UsageError(
                f"a rate of {self.rate_hz} samples per second (Hz) is out of range",
                f"choose 1 to {MAX_RATE_HZ}; 100 is usual, 1000 costs the target noticeably more",
            )
        if self.duration_ns is not FOREVER and not 0 < self.duration_ns <= MAX_DURATION_NS:
            raise UsageError(
                f"a duration of {format_duration(self.duration_ns)} is out of range",
                "choose more than nothing and at most a week: -d 30, -d 500ms, -d 2m",
            )
        if self.native:
            self.labels.check_native()
        if self.gil and self.idle:
            raise UsageError("--gil counts only running threads, --idle waiting ones too", "leave one of them out")
