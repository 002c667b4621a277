"""What happened to the GIL when: time in a bounded number of slices."""

from __future__ import annotations

from dataclasses import replace

from pprofpy.model.gil import MOST_SLICES, GilSlice, joined_slices
from pprofpy.units import NS_PER_S

_FIRST_SLICE_NS = NS_PER_S // 20


class GilSlices:
    """What happened when, in a bounded number of slices: if there are too many, each two become one.

    Args:
        length_ns: Of a slice; 0: as fits.
    """

    def __init__(self, length_ns: int) -> None:
        self._is_fixed = length_ns > 0
        self._length_ns = length_ns or _FIRST_SLICE_NS
        self._slices: list[GilSlice] = []
        self._last = (0, 0, 0)

    def is_due(self, now_ns: int) -> bool:
        """Is the current slice long enough?"""
        return now_ns - self._last[0] >= self._length_ns

    def add(self, now_ns: int, held_ns: int, wait_ns: int) -> None:
        """End a slice.

        Args:
            now_ns: Since the recording's beginning.
            held_ns, wait_ns: Sums since then.
        """
        start_ns, held_before_ns, wait_before_ns = self._last
        if now_ns <= start_ns:
            return
        self._slices.append(
            GilSlice(start_ns, now_ns, max(held_ns - held_before_ns, 0), max(wait_ns - wait_before_ns, 0))
        )
        self._last = (now_ns, held_ns, wait_ns)
        if len(self._slices) > MOST_SLICES and not self._is_fixed:
            self._length_ns *= 2
            self._slices = joined_slices(self._slices)

    def take(self, start_ns: int) -> tuple[GilSlice, ...]:
        """The slices since the last call, with times since `start_ns`."""
        taken, self._slices = self._slices, []
        return tuple(
            replace(one, start_ns=max(one.start_ns - start_ns, 0), end_ns=one.end_ns - start_ns) for one in taken
        )
