"""pprofpy: profile and trace running Python processes on Linux. See `library` for what can be called."""

# Nothing is imported here: `python -m pprofpy` runs this file before it can take care of Ctrl-C.
TYPE_CHECKING = False  # as type checkers know it
if TYPE_CHECKING:
    from typing import Any

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


def __getattr__(name: str) -> "Any":
    """Load the library when it is first used: `import pprofpy` alone costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pprofpy import library

    return getattr(library, name)
