"""From the sampler's tables to a profile with all four sample types.

The tables are read as the C structures that they are; `sampler/tables.h` defines them.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as Dict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.heapagent import plain
from pprofpy.collectors.heapagent.frames import Frames, is_ours
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Frame, Function, Label, LabelSet, Profile, ValueType

ALLOC_OBJECTS, ALLOC_SPACE = ValueType("alloc_objects", "count"), ValueType("alloc_space", "bytes")
INUSE_OBJECTS, INUSE_SPACE = ValueType("inuse_objects", "count"), ValueType("inuse_space", "bytes")
SAMPLED_TYPES = (ALLOC_OBJECTS, ALLOC_SPACE, INUSE_OBJECTS, INUSE_SPACE)

_STACK = np.dtype([("hash", "u8"), ("first", "u4"), ("depth", "u2"), ("truncated", "u2")])
_CELL = np.dtype(
    [("stack", "u4"), ("tid", "u4"), ("alloc_n", "i8"), ("alloc_bytes", "i8"), ("live_n", "i8"), ("live_bytes", "i8")]
)
_SIZES = ("alloc_n", "alloc_bytes", "live_n", "live_bytes")
_COUNTERS = 7
_FIXED_POINT = 1024
_MOST_ENTRIES, _MOST_FRAMES, _MOST_DEPTH = 1 << 16, 1 << 21, 256
"""As in sampler/tables.h: MAX_PLACES, MAX_STACKS and MAX_CELLS; MAX_FRAMES; MAX_DEPTH."""
_MOST_THREADS = 1 << 16
OUTSIDE_PYTHON, NO_ROOM = "[outside Python]", "[stacks that found no room]"
_SPECIAL = (OUTSIDE_PYTHON, NO_ROOM)
"""What the stacks with the first numbers stand for."""
_WRAPPER = "<string>"
"""The file of the code that brings ours into the target; a program may have one of that name, too."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted beside the samples, in the order of the enum in sampler.c.

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
class SamplerTables:
    """The sampler's tables at one moment.

    Attributes:
        codes: (file name, qualified name, first line) of each function.
        places: (index into codes, line).
        stacks, frames, cells: The tables, see tables.h.
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
    def of(cls, pieces: Iterator[Any]) -> SamplerTables:
        """Check what the agent said.

        Raises:
            ImplausibleTargetError: These are no tables of the sampler's.
        """
        kinds = list, list, bytes, bytes, bytes, bytes, int, list, list
        codes, places, stacks, frames, cells, counters, is_hooked, names, own_threads = plain.fields(
            plain.only(pieces), *kinds
        )
        reading = cls(
            [
                (file, name, plain.line(line))
                for file, name, line in plain.rows(codes, str, str, int, most=_MOST_ENTRIES)
            ],
            [(code, plain.line(line)) for code, line in plain.rows(places, int, int, most=_MOST_ENTRIES)],
            _table(stacks, _STACK, _MOST_ENTRIES),
            _table(frames, np.dtype("u4"), _MOST_FRAMES),
            _table(cells, _CELL, _MOST_ENTRIES),
            Counts(*map(plain.count, _table(counters, np.dtype("i8"), _COUNTERS, _COUNTERS).tolist())),
            bool(is_hooked),
            dict(plain.rows(names, int, str, most=_MOST_THREADS)),
            [tid for (tid,) in plain.rows(own_threads, int, most=_MOST_THREADS)],
        )
        reading.check()
        return reading

    def check(self) -> None:
        """Do the tables refer to each other as the sampler's do? Their stacks share no frames.

        Raises:
            ImplausibleTargetError: They don't.
        """
        first, depth = self.stacks["first"].astype(np.int64), self.stacks["depth"].astype(np.int64)
        is_right = (
            all(0 <= code < len(self.codes) for code, _ in self.places)
            and _all_below(self.frames, len(self.places))
            and _all_below(self.cells["stack"], len(self.stacks))
            and _all_below(first + depth, len(self.frames) + 1)
            and _all_below(depth, _MOST_DEPTH + 1)
            and int(depth.sum()) <= len(self.frames)
            and all(np.abs(self.cells[name].astype(float)).sum() < plain.MOST_NUMBER >> 1 for name in _SIZES)
        )
        if not is_right:
            raise plain.implausible("tables that contradict themselves")


def _table(content: bytes, kind: np.dtype[Any], most: int, least: int = 0) -> NDArray[Any]:
    """The records of one of the sampler's tables."""
    count, rest = divmod(len(content), kind.itemsize)
    if rest or not least <= count <= most:
        raise plain.implausible("a table of an impossible size")
    return np.frombuffer(content, kind)


def _all_below(numbers: NDArray[Any], limit: int) -> bool:
    return len(numbers) == 0 or int(numbers.max()) < limit


def to_profile(reading: SamplerTables, frames: Frames, threads: Dict[int, tuple[int, str]]) -> Profile:
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


def share_outside(profile: Profile) -> float:
    """The share of `alloc_space` that was allocated outside Python: 0 to 1."""
    column = SAMPLED_TYPES.index(ALLOC_SPACE)
    sums = {True: 0, False: 0}
    for stack, values, _ in profile.samples():
        sums[stack[0].function.name == OUTSIDE_PYTHON] += values[column]
    return sums[True] / max(sum(sums.values()), 1)


def _whole(values: list[int]) -> tuple[int, ...]:
    alloc_n, alloc_bytes, live_n, live_bytes = values
    return round(alloc_n / _FIXED_POINT), alloc_bytes, round(live_n / _FIXED_POINT), live_bytes


def _labels(tid: int, names: Dict[int, str], threads: Dict[int, tuple[int, str]]) -> LabelSet:
    outer_tid, kernel_name = threads.get(tid, (tid, ""))
    if not tid:
        return ()
    return Label("thread", names.get(tid) or kernel_name or f"thread {tid}"), Label("tid", outer_tid)
