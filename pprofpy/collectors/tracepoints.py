"""Which events a user means by `-e`: tracepoints and system calls, by name, group or wildcard.

    sched:sched_switch   sched:*   sched   block:*_queue   openat   read,write   'epoll_*'   '!futex'

Source: the kernel's events/GROUP/NAME/format files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache

from pprofpy.collectors.bpf.tracefs import tracing_folder
from pprofpy.errors import UsageError
from pprofpy.events.syscalls import SYSCALLS, canonical_name
from pprofpy.events.tracepoint import Tracepoint, parse_format



@dataclass(frozen=True, slots=True)
class Selection:
    """What to watch.

    Attributes:
        tracepoints: In the kernel's order of names.
        syscalls: System call numbers, ascending.
    """

    tracepoints: tuple[Tracepoint, ...]
    syscalls: tuple[int, ...]


def select(wanted: Sequence[str], *, with_syscalls: bool = True) -> Selection:
    """Find the events that `-e` names; all system calls if it names nothing.

    Args:
        wanted: Values of `-e`, each a list with commas; `!` in front takes events away.
        with_syscalls: Allow system calls.

    Raises:
        UsageError: There is no such event (the nearest names are suggested), or nothing is left to watch.
        NotPossibleError: The kernel's tracing files cannot be reached.
    """
    words = [word.strip() for value in wanted for word in value.split(",") if word.strip()]
    added = [word for word in words if not word.startswith("!")]
    removed = [word[1:].strip() for word in words if word.startswith("!")]
    names: set[str] = set()
    for word in added or ["*"]:
        names |= _matching(word)
    for word in removed:
        names -= _matching(word)
    tracepoints = tuple(describe(*name.split(":", 1)) for name in sorted(names) if ":" in name)
    syscalls = tuple(number for number, call in SYSCALLS.items() if call.name in names) if with_syscalls else ()
    if not tracepoints and not syscalls:
        raise UsageError("no event is left to watch", "name some: -e sched:sched_switch, -e 'block:*', -e openat,read")
    return Selection(tracepoints, syscalls)


def describe(group: str, event: str) -> Tracepoint:
    """A tracepoint of this kernel."""
    return parse_format(group, (tracing_folder() / "events" / group / event / "format").read_text())


@cache
def tracepoint_names() -> frozenset[str]:
    """All of this kernel: `group:event`.

    Raises:
        NotPossibleError: The kernel's tracing files cannot be reached.
    """
    lines = (tracing_folder() / "available_events").read_text().splitlines()
    return frozenset(line for line in lines if ":" in line)


def _matching(word: str) -> set[str]:
    """The events that a word means, at least one.

    A name without a colon is a system call, or else a group, or else a tracepoint of any group.
    """
    found = _syscalls_matching(word) or _tracepoints_matching(word)
    if not found:
        raise UsageError(f"there is no event {word!r}", _suggestion(word))
    return found


def _syscalls_matching(word: str) -> set[str]:
    if ":" in word:
        return set()
    return _match([call.name for call in SYSCALLS.values()], canonical_name(word))


def _tracepoints_matching(word: str) -> set[str]:
    if ":" in word:
        return _match(tracepoint_names(), word)
    return _match(tracepoint_names(), f"{word}:*") or _match(tracepoint_names(), f"*:{word}")


def _match(names: Iterable[str], pattern: str) -> set[str]:
    return {name for name in names if fnmatchcase(name, pattern)}


def _suggestion(word: str) -> str:
    names = tracepoint_names()
    short = {name.split(":", 1)[1]: name for name in sorted(names)}
    pool = [*names, *(call.name for call in SYSCALLS.values()), *(name.split(":", 1)[0] + ":*" for name in names)]
    near = get_close_matches(word, sorted(set(pool)), n=3, cutoff=0.6)
    near += [short[name] for name in get_close_matches(word.rpartition(":")[2], list(short), n=3, cutoff=0.6)]
    chosen = list(dict.fromkeys(near))[:4]
    return f"did you mean {' or '.join(chosen)}?" if chosen else "'pprofpy trace --list' lists all there are"
