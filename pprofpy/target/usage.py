r"""What a process uses, for lists of processes and for `-v`; psutil reads it.

It is asked only for numbers that the kernel alone writes (/proc/PID/{stat,statm,fd}). What psutil takes from
/proc/PID/status, as users and the number of threads, it searches for in the whole text, where a thread may be called
`Uid:\t0\t0\t0`; and its list of children is empty where one process of another user is hidden (hidepid). That, and
whatever is read often, is left to `procfs`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from pprofpy.text import counted
from pprofpy.units import NS_PER_S, format_value


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process uses; what could not be read is -1.

    Attributes:
        cpu_ns: CPU time of all its threads since it started.
        rss_bytes: Memory.
        descriptor_count: Open files and the like; only its user and root may know.
    """

    cpu_ns: int = -1
    rss_bytes: int = -1
    descriptor_count: int = -1

    def __str__(self) -> str:
        parts = [
            f"{format_value(self.cpu_ns, 'nanoseconds')} of CPU time" if self.cpu_ns >= 0 else "",
            format_value(self.rss_bytes, "bytes") if self.rss_bytes >= 0 else "",
            counted(self.descriptor_count, "descriptor") if self.descriptor_count >= 0 else "",
        ]
        return ", ".join(filter(None, parts))


def usage(pid: int | None = None) -> Usage:
    """Of a process, or of ourselves; nothing is known of one that has ended."""
    import psutil  # takes a moment, and most commands need none of it

    times = memory = None
    count = -1
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        times, memory = process.cpu_times(), process.memory_info()
        count = process.num_fds()
    cpu_ns = round((times.user + times.system) * NS_PER_S) if times else -1
    return Usage(cpu_ns, memory.rss if memory else -1, count)


def ancestors(pid: int | None = None) -> list[int]:
    """The pids of all who started a process, or us: the nearest first, as far as they can be seen."""
    import psutil

    found: list[int] = []
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        while process := process.parent():
            found.append(process.pid)
    return found
