"""From the sampler's tables to a profile with all four sample types.

The tables are read as the C structures that they are; `sampler.c` is their definition.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.heapagent.frames import Frames, is_ours
from pprofpy.profile import Frame, Function, Label, LabelSet, Profile, ProfileBuilder, ValueType

ALLOC_OBJECTS, ALLOC_SPACE = ValueType("alloc_objects", "count"), ValueType("alloc_space", "bytes")
INUSE_OBJECTS, INUSE_SPACE = ValueType("inuse_objects", "count"), ValueType("inuse_space", "bytes")
SAMPLED_TYPES = (ALLOC_OBJECTS, ALLOC_SPACE, INUSE_OBJECTS, INUSE_SPACE)

_STACK = np.dtype([("hash", "u8"), ("first", "u4"), ("depth", "u2"), ("truncated", "u2")])
_CELL = np.dtype(
    [("stack", "u4"), ("tid", "u4"), ("alloc_n", "i8"), ("alloc_bytes", "i8"), ("live_n", "i8"), ("live_bytes", "i8")]
)
_COUNTERS = ("samples", "lost_live", "lost_stacks", "no_stack", "truncated", "live", "busy")
_FIXED_POINT = 1024
OUTSIDE_PYTHON = "[outside Python]"
_SPECIAL = (OUTSIDE_PYTHON, "[stacks that found no room]")
"""What the stacks with the first numbers stand for."""
_WRAPPER = "<string>"
"""The file of the code that brings ours into the target; a program may have one of that name, too."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the sampler counted beside the samples, in the order of the enum in sampler.c.

    Attributes:
        samples: Allocations that were hit.
        lost_live: Of these, blocks that found no room in the table of those in use.
        lost_stacks: Samples whose stack found no room.
        no_stack: Samples of threads that ran no Python, or did not hold the interpreter's lock.
        truncated: Samples whose stack was deeper than asked for.
        live: Sampled blocks in use.
        busy: Samples whose stack was given up because another thread was adding one.
    """

    samples: int
    lost_live: int
    lost_stacks: int
    no_stack: int
    truncated: int
    live: int
    busy: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The sampler's tables at one moment.

    Attributes:
        codes: (file name, qualified name, first line) of each function.
        places: (index into codes, line).
        stacks, frames, cells: The tables, see sampler.c.
        counts: What else was counted.
        is_hooked: Did allocations still reach the hooks?
        names: Thread id in the target's namespace -> name.
        own_threads: The ids there of the threads in which code of ours ran.
    """

    codes: list[tuple[str, str, int]]
    places: list[tuple[int, int]]
    stacks: NDArray[Any]
    frames: NDArray[Any]
    cells: NDArray[Any]
    counts: Counts
    is_hooked: bool
    names: dict[int, str]
    own_threads: list[int]

    @classmethod
    def of(cls, content: bytes) -> Reading:
        """Unpack what the agent wrote."""
        unpacked = marshal.loads(content)  # noqa: S302 - it can only make plain data
        codes, places, stacks, frames, cells, counters, is_hooked, names, own_threads = unpacked
        return cls(
            codes,
            places,
            np.frombuffer(stacks, _STACK),
            np.frombuffer(frames, np.uint32),
            np.frombuffer(cells, _CELL),
            Counts(*np.frombuffer(counters, np.int64).tolist()),
            bool(is_hooked),
            names,
            own_threads,
        )


def to_profile(reading: Reading, frames: Frames, threads: Dict[int, tuple[int, str]]) -> Profile:
    """Build a profile; values are estimates of the whole, as Go's are.

    Args:
        reading: The tables.
        frames: Names functions.
        threads: Thread id in the target's namespace -> id in ours, and the kernel's name for it.
    """
    builder = ProfileBuilder(SAMPLED_TYPES)
    codes = [frames.function(*code) for code in reading.codes]
    ours = {number for number, code in enumerate(reading.codes) if is_ours(code[0])}
    places = [builder.frame_location(Frame(codes[code], line)) for code, line in reading.places]
    is_our_place = [code in ours for code, _ in reading.places]
    is_wrapper = [reading.codes[code][0] == _WRAPPER for code, _ in reading.places]
    for stack, tid, *values in reading.cells.tolist():
        _, first, depth, _ = reading.stacks[stack].tolist()
        numbers = reading.frames[first : first + depth].tolist()
        if not any(values) or any(is_our_place[number] for number in numbers):
            continue
        if tid in reading.own_threads and (not numbers or is_wrapper[numbers[-1]]):
            continue
        if stack < len(_SPECIAL):
            locations = (builder.frame_location(Frame(Function(_SPECIAL[stack]))),)
        else:
            locations = tuple(places[number] for number in numbers)
        builder.add_locations(locations, _whole(values), _labels(tid, reading.names, threads))
    return builder.build()


def _whole(values: list[int]) -> tuple[int, ...]:
    alloc_n, alloc_bytes, live_n, live_bytes = values
    return round(alloc_n / _FIXED_POINT), alloc_bytes, round(live_n / _FIXED_POINT), live_bytes


def _labels(tid: int, names: Dict[int, str], threads: Dict[int, tuple[int, str]]) -> LabelSet:
    outer_tid, kernel_name = threads.get(tid, (tid, ""))
    if not tid:
        return ()
    return Label("thread", names.get(tid) or kernel_name or f"thread {tid}"), Label("tid", outer_tid)
