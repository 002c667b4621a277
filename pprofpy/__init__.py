"""pprofpy: profile and trace running Python processes on Linux. See `library` for what can be called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pprofpy.library import (
        Recorded,
        load,
        record_cpu,
        record_events,
        record_gil,
        record_heap,
        record_off_cpu,
        record_sched_latency,
    )

__version__ = "0.1.0"

__all__ = [
    "Recorded",
    "load",
    "record_cpu",
    "record_events",
    "record_gil",
    "record_heap",
    "record_off_cpu",
    "record_sched_latency",
]


def __getattr__(name: str) -> Any:
    """Load the library when it is first used: `import pprofpy` alone costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pprofpy import library

    return getattr(library, name)
