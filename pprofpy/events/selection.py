"""Which events a user means by `-e`: tracepoints and system calls, by name, group or wildcard.

    sched:sched_switch   sched:*   sched   block:*_queue   openat   read,write   'epoll_*'   '!futex'

A name without a colon is a system call, or else a group of tracepoints, or else a tracepoint of any group.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from pprofpy.errors import UsageError
from pprofpy.events.syscalls import SYSCALLS, canonical_name

_MOST_SUGGESTIONS = 4


def matching(wanted: Sequence[str], tracepoints: Collection[str], *, with_syscalls: bool = True) -> set[str]:
    """The names of the events that `-e` means; all system calls if it names nothing.

    Args:
        wanted: Values of `-e`, each a list with commas; `!` in front takes events away.
        tracepoints: All that there are, as `group:event`.
        with_syscalls: Allow system calls.

    Raises:
        UsageError: There is no such event (the nearest names are suggested), or nothing is left.
    """
    words = [word.strip() for value in wanted for word in value.split(",") if word.strip()]
    added = [word for word in words if not word.startswith("!")]
    names: set[str] = set()
    for word in added or ["*"]:
        names |= _meant_by(word, tracepoints)
    for word in words:
        if word.startswith("!"):
            names -= _meant_by(word[1:].strip(), tracepoints)
    if not with_syscalls:
        names = {name for name in names if ":" in name}
    if not names:
        raise UsageError("no event is left to watch", "name some: -e sched:sched_switch, -e 'block:*', -e openat,read")
    return names


def _meant_by(word: str, tracepoints: Collection[str]) -> set[str]:
    if ":" in word:
        found = _match(tracepoints, word)
    else:
        found = (
            _match([call.name for call in SYSCALLS.values()], canonical_name(word))
            or _match(tracepoints, f"{word}:*")
            or _match(tracepoints, f"*:{word}")
        )
    if not found:
        raise UsageError(f"there is no event {word!r}", _suggestion(word, tracepoints))
    return found


def _match(names: Iterable[str], pattern: str) -> set[str]:
    return {name for name in names if fnmatchcase(name, pattern)}


def _suggestion(word: str, tracepoints: Collection[str]) -> str:
    """The nearest names: whole ones, groups, and events whatever their group."""
    calls = [call.name for call in SYSCALLS.values()]
    groups = sorted({name.partition(":")[0] + ":*" for name in tracepoints})
    by_event = {name.partition(":")[2]: name for name in sorted(tracepoints)}
    near = get_close_matches(word, [*sorted(tracepoints), *calls, *groups], n=3)
    near += [by_event[event] for event in get_close_matches(word.rpartition(":")[2], list(by_event), n=3)]
    chosen = list(dict.fromkeys(near))[:_MOST_SUGGESTIONS]
    if chosen:
        return f"did you mean {' or '.join(chosen)}?"
    return "'pprofpy trace --list' lists all that there are"
