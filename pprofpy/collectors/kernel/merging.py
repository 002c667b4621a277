"""The events of several ring buffers in order of time, a part at a time.

After a flood, or a while without a CPU, there may be a hundred megabytes of them. They are never all in our memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.kernel.ring import EventStream

Records = NDArray[Any]

PART_BYTES = 1 << 20
"""What is read of a buffer at once."""

IN_FLIGHT_NS = 2_000_000
"""A record this old has been written, whatever CPU it came from."""


class MergedStream:
    """A ring buffer whose events wait for earlier ones of others.

    Args:
        stream: Its reading end; None if there are no such events.
        dtype: Their type.
        times_of: When events happened, on the monotonic clock; about in their order.
        prepare: Called with each part that was read; it may change it.
    """

    def __init__(
        self,
        stream: EventStream | None,
        dtype: np.dtype[Any],
        times_of: Callable[[Records], NDArray[Any]],
        prepare: Callable[[Records], None],
    ) -> None:
        self._stream = stream
        self._times_of = times_of
        self._prepare = prepare
        self._held: Records = np.zeros(0, dtype)

    @property
    def is_behind(self) -> bool:
        """Is there more in the buffer?"""
        return self._stream is not None and self._stream.is_behind

    @property
    def newest_ns(self) -> int:
        """When the last event happened that was read and not taken; 0 if there is none."""
        return int(self._times_of(self._held[-1:])[0]) if len(self._held) else 0

    @property
    def has_a_part(self) -> bool:
        """Is enough of it in memory?"""
        return self._held.nbytes >= PART_BYTES

    def fill(self) -> bool:
        """Read a part more; return False if there is none."""
        fresh = self._stream.read(PART_BYTES) if self._stream else self._held[:0]
        if not len(fresh):
            return False
        self._prepare(fresh)
        self._held = np.concatenate([self._held, fresh])
        return True

    def take(self, until_ns: int) -> Records:
        """Return those that happened before."""
        is_ready = self._times_of(self._held) < until_ns
        ready, self._held = self._held[is_ready], self._held[~is_ready]
        return ready


def in_order(streams: Sequence[MergedStream], until_ns: int) -> Iterator[list[Records]]:
    """All events before a time, which is IN_FLIGHT_NS ago, or after the last event.

    Yields:
        Those of a stretch of time: an array for each stream. None in a later stretch is older.
    """
    for one in streams:
        one.fill()
    while True:
        slowest = min((one for one in streams if one.is_behind), key=lambda one: one.newest_ns, default=None)
        limit_ns = min(until_ns, slowest.newest_ns - IN_FLIGHT_NS) if slowest else until_ns
        yield [one.take(limit_ns) for one in streams]
        if not slowest or limit_ns == until_ns or not slowest.fill():
            return
        for one in streams:
            if one.is_behind and one is not slowest and not one.has_a_part:
                one.fill()
