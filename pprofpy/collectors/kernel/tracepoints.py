"""The events of this kernel: their names, and what their records look like.

Source: the kernel's tracing files available_events and events/GROUP/NAME/format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from pprofpy.collectors.kernel.tracefs import tracing_folder
from pprofpy.collectors.kernel.types import kernel_types
from pprofpy.errors import NotPossibleError
from pprofpy.events.selection import matching
from pprofpy.events.syscalls import SYSCALLS
from pprofpy.events.tracepoint import Tracepoint, enumerators_of, parse_format


@dataclass(frozen=True, slots=True)
class Selection:
    """What to watch.

    Attributes:
        tracepoints: In alphabetical order.
        syscalls: System call numbers, ascending.
    """

    tracepoints: tuple[Tracepoint, ...]
    syscalls: tuple[int, ...]


def select(wanted: Sequence[str], *, with_syscalls: bool = True) -> Selection:
    """Find the events that `-e` names; see `pprofpy.events.selection`.

    Raises:
        UsageError: There is no such event (the nearest names are suggested), or nothing is left to watch.
        NotPossibleError: The kernel's tracing files cannot be reached.
    """
    names = matching(wanted, tracepoint_names() if wanted else (), with_syscalls=with_syscalls)
    return Selection(
        describe(name for name in sorted(names) if ":" in name),
        tuple(number for number, call in SYSCALLS.items() if call.name in names),
    )


def listing(wanted: Sequence[str], *, with_syscalls: bool = True) -> list[str]:
    """The names of all events, or of those that match: tracepoints, then system calls."""
    everything = (*wanted, *(() if wanted else ("*:*", "*")))
    names = matching(everything, tracepoint_names(), with_syscalls=with_syscalls)
    return sorted(names, key=lambda name: (":" not in name, name))


def describe(names: Iterable[str]) -> tuple[Tracepoint, ...]:
    """Tracepoints of this kernel, with the values of the kernel's constants that their descriptions mention.

    Raises:
        NotPossibleError: One has gone in the meantime, with its kernel module.
    """
    texts = {name: _format_text(*name.split(":", 1)) for name in names}
    mentioned = {name: enumerators_of(text) for name, text in texts.items()}
    wanted = set().union(*mentioned.values())
    values = kernel_types().enumerators(wanted) if wanted else {}
    return tuple(
        parse_format(name.partition(":")[0], text, {one: values[one] for one in mentioned[name] & values.keys()})
        for name, text in texts.items()
    )


def _format_text(group: str, event: str) -> str:
    try:
        return (tracing_folder() / "events" / group / event / "format").read_text()
    except OSError as error:
        raise NotPossibleError(f"{group}:{event} cannot be read: {error.strerror}", _remedy(error)) from error


def _remedy(error: OSError) -> str:
    return "run it with sudo, or grant CAP_DAC_READ_SEARCH" if isinstance(error, PermissionError) else "run it again"


@cache
def tracepoint_names() -> frozenset[str]:
    """All of this kernel: `group:event`.

    Raises:
        NotPossibleError: The kernel's tracing files cannot be reached.
    """
    path = tracing_folder() / "available_events"
    try:
        return frozenset(line for line in path.read_text().splitlines() if ":" in line)
    except OSError as error:
        raise NotPossibleError(
            f"the kernel's list of events cannot be read: {error.strerror}", _remedy(error)
        ) from error
