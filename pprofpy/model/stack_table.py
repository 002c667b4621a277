"""Many stacks in two arrays, whatever the numbers on them stand for; leaf-first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Stacks:
    """Many stacks in two arrays: stack i is `locations[offsets[i]:offsets[i + 1]]`, leaf-first.

    Attributes:
        offsets: int64, one more than there are stacks, rising from 0.
        locations: int64 indices into `Profile.locations`.
    """

    offsets: Ints
    locations: Ints

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | Ints]) -> Stacks:
        """Build from rows of location indices (leaf-first)."""
        materialized = list(rows)
        lengths = np.fromiter((len(row) for row in materialized), np.int64, len(materialized))
        flat = np.fromiter((item for row in materialized for item in row), np.int64, int(lengths.sum()))
        return cls(offsets_of(lengths), flat)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Ints:
        return self.locations[self.offsets[index] : self.offsets[index + 1]]

    @property
    def depths(self) -> Ints:
        """The number of locations in each stack."""
        return np.diff(self.offsets)

    def owners(self, first: int = 0, last: int | None = None) -> Ints:
        """For each entry of `locations`, the index of its stack; only for the stacks from `first` up to `last`."""
        last = len(self) if last is None else last
        return np.repeat(np.arange(first, last, dtype=np.int64), np.diff(self.offsets[first : last + 1]))

    def any(self, flags: Mask) -> Mask:
        """For each stack: is `flags` (one per entry of `locations`) set anywhere in it?"""
        return self._count(flags) > 0

    def keep(self, flags: Mask) -> Stacks:
        """Return these stacks with only the entries whose flag is set."""
        return Stacks(offsets_of(self._count(flags)), self.locations[flags])

    def take(self, indices: Ints) -> Stacks:
        """The chosen stacks, in the order of `indices`."""
        lengths = self.depths[indices]
        offsets = offsets_of(lengths)
        taken = np.empty(offsets[-1], np.int64)
        for first in range(0, len(indices), _BLOCK):  # piece by piece: what is in between takes five times the result
            last = min(first + _BLOCK, len(indices))
            shift = np.repeat(self.offsets[indices[first:last]] - offsets[first:last], lengths[first:last])
            places = np.arange(offsets[first], offsets[last], dtype=np.int64) + shift
            taken[offsets[first] : offsets[last]] = self.locations[places]
        return Stacks(offsets, taken)

    def _count(self, flags: Mask) -> Ints:
        running = np.concatenate(([0], np.cumsum(flags, dtype=np.int64)))
        return np.diff(running[self.offsets])


_BLOCK = 1 << 17


def offsets_of(lengths: Ints) -> Ints:
    """Where rows of these lengths start, when laid end to end; one more entry than rows."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
