"""From tracemalloc's traces to a profile: exact, only of what is in use, with lines but no names of functions."""

from __future__ import annotations

import io
import marshal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pprofpy.collectors.heapagent.frames import Frames, is_ours
from pprofpy.collectors.heapagent.samples import INUSE_OBJECTS, INUSE_SPACE, OUTSIDE_PYTHON
from pprofpy.profile import Frame, Function, Profile, ProfileBuilder

PROGRESS_BYTES = 16
TRACED_TYPES = (INUSE_OBJECTS, INUSE_SPACE)

_NO_PYTHON = ("<unknown>", 0)
"""How tracemalloc calls it."""

_Traceback = tuple[tuple[str, int], ...]


@dataclass(slots=True)
class Traces:
    """All traced blocks by their stack.

    Attributes:
        count: Blocks.
        tracer_bytes: What tracemalloc itself needs to remember them.
        blocks: Stack (file name and line, leaf-first) -> number and bytes.
        truncated: Blocks whose stack was deeper than asked for; -1 if Python 3.8 does not tell.
    """

    count: int
    tracer_bytes: int
    blocks: dict[_Traceback, list[int]]
    truncated: int

    @classmethod
    def of(cls, content: bytes) -> Traces:
        """Unpack what the agent wrote. Sums up piece by piece: millions of traces have but thousands of stacks."""
        _, count = progress(content)
        pieces = _pieces(content)
        tracer_bytes, are_sums = next(pieces)
        blocks: defaultdict[_Traceback, list[int]] = defaultdict(lambda: [0, 0])
        truncated = 0
        for piece in pieces:
            for frames, number, size, deeper in piece if are_sums else map(_alone, piece):
                entry = blocks[frames]
                entry[0] += number
                entry[1] += size
                truncated += deeper
        return cls(count, tracer_bytes, dict(blocks), max(truncated, -1))


def progress(content: bytes) -> tuple[int, int]:
    """How many traces the agent has done, and how many there are; zeros as long as it does not know."""
    return int.from_bytes(content[:8], "little"), int.from_bytes(content[8:PROGRESS_BYTES], "little")


def _pieces(content: bytes) -> Iterator[Any]:
    stream = io.BytesIO(content)
    stream.seek(PROGRESS_BYTES)
    while stream.tell() < len(content):
        yield marshal.load(stream)  # noqa: S302 - it can only make plain data


def _alone(trace: tuple[Any, ...]) -> tuple[_Traceback, int, int, int]:
    """A trace as if it were a sum."""
    _, size, frames, *total = trace
    return frames, 1, size, int(total[0] > len(frames)) if total else -1


def to_profile(traces: Traces, frames: Frames) -> Profile:
    """Build a profile; the blocks of our own agent are left out."""
    builder = ProfileBuilder(TRACED_TYPES)
    known = {_NO_PYTHON: Frame(Function(OUTSIDE_PYTHON))}
    for traceback, (count, size) in traces.blocks.items():
        if any(is_ours(filename) for filename, _ in traceback):
            continue
        for place in traceback:
            if place not in known:
                known[place] = frames.frame(*place)
        builder.add([known[place] for place in traceback], (count, size))
    return builder.build()
