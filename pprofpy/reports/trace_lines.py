"""Events as lines: when, how long, on which CPU, which thread, and what.

    TIME    TOOK CPU THREAD      EVENT
0.022357   7.8us   1 python/778  openat(AT_FDCWD, "/etc/hostname", O_RDONLY|O_CLOEXEC) = 3
0.022434           1 python/778  sched:sched_switch prev_comm=python prev_pid=778 ...

and, if they were recorded, the functions that called for it, innermost first, in lines of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from rich.console import Console

from pprofpy.events.event_profile import frame_text
from pprofpy.events.words import TracedEvent
from pprofpy.text import printable
from pprofpy.units import NS_PER_S, format_short

_NARROWEST_THREAD, _WIDEST_THREAD = 10, 24
_STACK_INDENT = 25
_SLOW_NS = 10_000_000
_DIM, _RED, _BOLD, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[1m", "\x1b[0m"


class LinePrinter:
    """Prints events as they come.

    Args:
        console: Where to.
    """

    def __init__(self, console: Console) -> None:
        self._write = console.file.write
        self._thread_width = _NARROWEST_THREAD
        self._in_colour = console.is_terminal and not console.no_color
        self._has_heading = False

    def print(self, lines: Sequence[TracedEvent]) -> None:
        """Append these lines."""
        if not lines:
            return
        threads = {line[4:6] for line in lines}
        longest = max(len(name) + len(str(tid)) + 1 for tid, name in threads)
        self._thread_width = min(max(self._thread_width, longest), _WIDEST_THREAD)
        if not self._has_heading:
            self._write(f"{'TIME':>10} {'TOOK':>7} CPU {'THREAD':<{self._thread_width}} EVENT\n")
            self._has_heading = True
        make = self._coloured if self._in_colour else self._plain
        self._write("".join([make(line) for line in lines]))

    def _plain(self, line: TracedEvent) -> str:
        at_ns, duration_ns, cpu, _, tid, thread, event, text, stack = line
        gap = " " if duration_ns < 0 and ":" in event else ""
        who = f"{printable(thread)}/{tid}"
        return (
            f"{at_ns / NS_PER_S:10.6f} {_took(duration_ns)} {cpu:3} "
            f"{who:<{self._thread_width}} {printable(f'{event}{gap}{text}')}\n"
            + "".join([f"{'':{_STACK_INDENT}}{printable(frame_text(frame))}\n" for frame in stack])
        )

    def _coloured(self, line: TracedEvent) -> str:
        """The same for a terminal: slow calls bold, failed ones red."""
        text, _, stack = self._plain(line).partition("\n")
        head, body = text[:22], text[22:]
        time, took = head[:11], head[11:]
        if line.duration_ns >= _SLOW_NS:
            took = f"{_BOLD}{took}{_PLAIN}"
        if line.duration_ns >= 0 and ") = -1 E" in line.text:
            body = f"{_RED}{body}{_PLAIN}"
        below = f"{_DIM}{stack}{_PLAIN}" if stack else ""
        return f"{_DIM}{time}{_PLAIN}{took}{body}\n{below}"


@lru_cache(1 << 16)
def _took(duration_ns: int) -> str:
    return f"{format_short(duration_ns, 'ns') if duration_ns >= 0 else '':>7}"


def to_json(line: TracedEvent) -> dict[str, Any]:
    """A line for programs; times in nanoseconds, `at_ns` since the recording began."""
    fields = line._asdict() | {"stack": list(map(frame_text, line.stack))}
    if not line.stack:
        del fields["stack"]
    return fields | ({"duration_ns": None} if line.duration_ns < 0 else {})
