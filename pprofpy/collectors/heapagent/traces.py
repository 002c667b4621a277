"""From tracemalloc's traces to a profile: exact, only of what is in use, with lines but no names of functions."""

from __future__ import annotations

import io
import marshal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pprofpy.collectors.heapagent.frames import Frames, is_ours
from pprofpy.collectors.heapagent.samples import INUSE_OBJECTS, INUSE_SPACE
from pprofpy.profile import Frame, Profile, ProfileBuilder

TRACED_TYPES = (INUSE_OBJECTS, INUSE_SPACE)

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
        pieces = _pieces(content)
        count, tracer_bytes = next(pieces)
        blocks: defaultdict[_Traceback, list[int]] = defaultdict(lambda: [0, 0])
        truncated = -1
        for piece in pieces:
            for _, size, frames, *total in piece:
                entry = blocks[frames]
                entry[0] += 1
                entry[1] += size
                if total:
                    truncated = max(truncated, 0) + (total[0] > len(frames))
        return cls(count, tracer_bytes, dict(blocks), truncated)


def _pieces(content: bytes) -> Iterator[Any]:
    stream = io.BytesIO(content)
    while stream.tell() < len(content):
        yield marshal.load(stream)  # noqa: S302 - it can only make plain data


def to_profile(traces: Traces, frames: Frames) -> Profile:
    """Build a profile; the blocks of our own agent are left out."""
    builder = ProfileBuilder(TRACED_TYPES)
    known: dict[tuple[str, int], Frame] = {}
    for traceback, (count, size) in traces.blocks.items():
        if any(is_ours(filename) for filename, _ in traceback):
            continue
        for place in traceback:
            if place not in known:
                known[place] = frames.frame(*place)
        builder.add([known[place] for place in traceback], (count, size))
    return builder.build()
