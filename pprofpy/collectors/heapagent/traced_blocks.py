"""From tracemalloc's traces to a profile: exact, only of what is in use, with lines but no names of functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pprofpy.collectors.heapagent import plain
from pprofpy.collectors.heapagent.frames import Frames, is_ours
from pprofpy.collectors.heapagent.samples import INUSE_OBJECTS, INUSE_SPACE, NO_ROOM, OUTSIDE_PYTHON
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Frame, Function, Profile

TRACED_TYPES = (INUSE_OBJECTS, INUSE_SPACE)

_NO_PYTHON = ("<unknown>", 0)
"""How tracemalloc calls it."""
_MOST_STACKS, _MOST_FRAMES = 1 << 18, 1 << 22
"""What we keep; blocks with other stacks than these are summed up, and counted as such."""
_LARGEST_BLOCK = 1 << 42
"""In bytes: the sum of as many as a piece can hold still is a number of 64 bits."""
_MOST_ROWS = plain.MOST_OBJECTS

_Traceback = tuple[tuple[str, int], ...]
_ELSEWHERE: _Traceback = ((NO_ROOM, 0),)


@dataclass(slots=True)
class TracedBlocks:
    """All traced blocks by their stack.

    Attributes:
        count: Blocks.
        tracer_bytes: What tracemalloc itself needs to remember them.
        blocks: Stack (file name and line, leaf-first) -> number and bytes.
        truncated: Blocks whose stack was deeper than asked for; -1 if Python 3.8 does not tell.
        lost_stacks: Blocks whose stack found no room.
    """

    count: int = 0
    tracer_bytes: int = 0
    blocks: dict[_Traceback, list[int]] = field(default_factory=dict)
    truncated: int = 0
    lost_stacks: int = 0
    _frames: int = 0

    @classmethod
    def of(cls, pieces: Iterator[Any]) -> TracedBlocks:
        """Sum up what the agent said, piece by piece: millions of traces have but thousands of stacks.

        Raises:
            ImplausibleTargetError: These are no traces.
        """
        found = cls()
        tracer_bytes, are_sums = plain.fields(next(pieces, None), int, bool)
        found.tracer_bytes = plain.count(tracer_bytes)
        if are_sums:
            for piece in pieces:
                for traceback, count, size, deeper in plain.rows(piece, tuple, int, int, int, most=_MOST_ROWS):
                    found._add(_checked(traceback), plain.count(count), plain.count(size), deeper)
        else:
            for tracebacks in pieces:
                found._add_traces(tracebacks, next(pieces, None), next(pieces, None))
        plain.count(sum(size for _, size in found.blocks.values()))
        found.truncated = max(found.truncated, -1)
        return found

    def _add(self, traceback: _Traceback, count: int, size: int, deeper: int) -> None:
        entry = self.blocks.get(traceback)
        if entry is None:
            self._frames += len(traceback)
            if len(self.blocks) >= _MOST_STACKS or self._frames > _MOST_FRAMES:
                self._frames -= len(traceback)
                self.lost_stacks += count
                traceback = _ELSEWHERE
            entry = self.blocks.setdefault(traceback, [0, 0])
        entry[0] += count
        entry[1] += size
        self.count += count
        self.truncated += plain.count(deeper, count) if deeper >= 0 else -1

    def _add_traces(self, tracebacks: Any, sizes: Any, depths: Any) -> None:
        """Add traces as they are, given as columns. Whatever several of them refer to has been read only once."""
        sizes_array, depths_array = _numbers(sizes), _numbers(depths)
        knows_depths = len(depths_array) > 0
        if type(tracebacks) is not list or len(sizes_array) != len(tracebacks):
            raise plain.implausible("columns of different lengths")
        if knows_depths and len(depths_array) != len(tracebacks):
            raise plain.implausible("columns of different lengths")
        distinct = {id(one): one for one in tracebacks}
        numbers = {identity: number for number, identity in enumerate(distinct)}
        index = np.fromiter((numbers[id(one)] for one in tracebacks), np.int64, len(tracebacks))
        lengths = np.fromiter((len(_checked(one)) for one in distinct.values()), np.int64, len(distinct))
        counts, sums, deeper = (np.zeros(len(distinct), np.int64) for _ in range(3))
        np.add.at(counts, index, 1)
        np.add.at(sums, index, sizes_array)
        if knows_depths:
            np.add.at(deeper, index, depths_array > lengths[index])
        else:
            deeper -= 1
        columns = zip(distinct.values(), counts.tolist(), sums.tolist(), deeper.tolist(), strict=True)
        for traceback, count, size, cut in columns:
            self._add(traceback, count, plain.count(size), cut)


def _checked(traceback: Any) -> _Traceback:
    """A stack of tracemalloc's."""
    if type(traceback) is not tuple:
        raise plain.implausible("no stack")
    for frame in traceback:
        _, line = plain.fields(frame, str, int)
        plain.count(line, plain.MOST_LINES)
    return traceback


def _numbers(column: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A list of numbers, each of which a process can have so many of."""
    if type(column) is not list or not all(type(one) is int for one in column):
        raise plain.implausible("no column of numbers")
    array = np.array(column, np.int64)
    if len(array) and not (array.min() >= 0 and array.max() <= _LARGEST_BLOCK):
        raise plain.implausible("a number out of range")
    return array


def to_profile(traces: TracedBlocks, frames: Frames) -> Profile:
    """Build a profile; the blocks of our own agent are left out."""
    builder = ProfileBuilder(TRACED_TYPES)
    known = {_NO_PYTHON: Frame(Function(OUTSIDE_PYTHON)), _ELSEWHERE[0]: Frame(Function(NO_ROOM))}
    for traceback, (count, size) in traces.blocks.items():
        if any(is_ours(filename) for filename, _ in traceback):
            continue
        for place in traceback:
            if place not in known:
                known[place] = frames.frame(*place)
        builder.add([known[place] for place in traceback], (count, size))
    return builder.build()
