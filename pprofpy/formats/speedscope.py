"""speedscope's file format: JSON for https://www.speedscope.app, one of its profiles for each thread.

Written is the default sample type, by function. Lost are lines, the other sample types, and all labels but the thread.
Read are sampled and evented profiles, ours and others'; their times become nanoseconds. Profiles that count different
things become sample types of one.

Source: https://github.com/jlfwong/speedscope/blob/main/src/lib/file-format-spec.ts
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pprofpy import __version__
from pprofpy.errors import ProfileFormatError, UsageError
from pprofpy.formats.decoding import clean
from pprofpy.formats.document import DocumentError, brief, items, members, parse
from pprofpy.formats.limits import BYTES_OF_FRAME, BYTES_OF_STACK, check_expansion, check_frames, check_memory
from pprofpy.formats.open_frames import OpenFrames
from pprofpy.formats.strangers import refuse_by_members
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Frame, Function, Label, LabelSet, Mapping, Profile, ValueType
from pprofpy.model.stack_table import Ints
from pprofpy.units import scale

SCHEMA = "https://www.speedscope.app/file-format-schema.json"
THREAD = "thread"

_UNITS = ("none", "bytes", "nanoseconds", "microseconds", "milliseconds", "seconds")
_TYPES = {"none": ValueType("samples", "count"), "bytes": ValueType("space", "bytes")}
_SHORTEST_EVENT_BYTES = len('{"type":"O","frame":0,"at":0},')
_ENTRIES = {"sampled": "samples", "evented": "events"}
_TIME = ValueType("time", "nanoseconds")
_LARGEST_VALUE = 2**63 - 1
MAPPING = Mapping(has_functions=True, has_filenames=True, has_line_numbers=True)
"""Frames read from a file come from a program that the file does not name."""


# -- writing -------------------------------------------------------------------------------------------------------


def write(profile: Profile) -> bytes:
    """Encode.

    Raises:
        UsageError: It has negative values (a difference), which speedscope cannot show.
    """
    value_index = profile.value_index()
    kind = profile.sample_types[value_index]
    frames, frames_at = _frame_table(profile)
    threads = _by_thread(profile, kind.type)
    document = {
        # First, since a file of ours is recognized by its beginning.
        "exporter": f"pprofpy@{__version__}",
        "$schema": SCHEMA,
        "name": kind.type,
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": [
            _thread_profile(name, kind.unit, *_stack_weights(profile, rows, value_index), profile, frames_at)
            for name, rows in threads.items()
        ],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _frame_table(profile: Profile) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """The file's frames, and for each location the indices of its frames, outermost first."""
    indices: dict[Function, int] = {}
    frames_at = [
        [
            indices.setdefault(frame.function._replace(system_name=""), len(indices))
            for frame in reversed(profile.frames_of(location))
        ]
        for location in profile.locations
    ]
    return [_frame(function) for function in indices], frames_at


def _frame(function: Function) -> dict[str, Any]:
    frame: dict[str, Any] = {"name": function.name or "<unknown>"}
    if function.filename:
        frame["file"] = function.filename
    if function.start_line > 0:
        frame["line"] = function.start_line
    return frame


def _by_thread(profile: Profile, default: str) -> dict[str, Ints]:
    """Thread name -> its samples, the most first; what has no thread goes under `default`."""
    names = _thread_names(profile.label_sets, default)
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    number_of = np.array([known[name] for name in names], np.int64)[profile.sample_labels]
    rows = {name: np.flatnonzero(number_of == number) for name, number in known.items()}
    order = sorted((name for name in rows if len(rows[name])), key=lambda name: -len(rows[name]))
    return {name: rows[name] for name in order} or {default: np.zeros(0, np.int64)}


def _thread_names(label_sets: Sequence[LabelSet], default: str) -> list[str]:
    """For each label set the name of its thread; different threads of one name are told apart by their numbers."""
    facts = [{label.key: label.value for label in labels} for labels in label_sets]
    threads = [(str(fact.get(THREAD, default)), fact.get("pid"), fact.get("tid")) for fact in facts]
    namesakes = Counter(name for name, _, _ in set(threads))
    return [
        f"{name} (pid {pid}, tid {tid})"
        if namesakes[name] > 1 and pid
        else f"{name} (tid {tid})"
        if namesakes[name] > 1 and tid
        else name
        for name, pid, tid in threads
    ]


def _stack_weights(profile: Profile, rows: Ints, value_index: int) -> tuple[list[int], list[int]]:
    """The distinct stacks among some samples, and what each of them weighs."""
    stacks, group = np.unique(profile.sample_stacks[rows], return_inverse=True)
    weights = np.zeros(len(stacks), np.int64)
    np.add.at(weights, group.reshape(-1), profile.values[rows, value_index])
    if (weights < 0).any():
        raise UsageError(
            "this profile has negative values, which speedscope cannot show",
            "export the two profiles of the difference one by one, or use --format pprof",
        )
    return stacks[weights > 0].tolist(), weights[weights > 0].tolist()


def _thread_profile(
    name: str, unit: str, stacks: list[int], weights: list[int], profile: Profile, frames_at: list[list[int]]
) -> dict[str, Any]:
    return {
        "type": "sampled",
        "name": name,
        "unit": unit if unit in _UNITS else "none",
        "startValue": 0,
        "endValue": sum(weights),
        "samples": [
            [frame for location in reversed(profile.stacks[stack].tolist()) for frame in frames_at[location]]
            for stack in stacks
        ],
        "weights": weights,
    }


# -- reading -------------------------------------------------------------------------------------------------------


def read(data: bytes) -> Profile:
    """Decode.

    A profile in the file is taken for a thread, unless it is the only one and named like the file.

    Raises:
        ProfileFormatError: It is not JSON, not of this format, or holds no profile.
    """
    try:
        document = members(parse(data))
        refuse_by_members(document)
        profile = _read(document, len(data))
    except DocumentError as error:
        raise _invalid(str(error)) from error
    check_expansion(profile, len(data))
    return profile


def _read(document: dict[str, Any], size: int) -> Profile:
    frames = items(members(document.get("shared")).get("frames"))
    threads = [members(thread) for thread in items(document.get("profiles"))]
    if not threads:
        raise _invalid("it holds no profile")
    stacks = sum(len(items(thread.get(_ENTRIES[_type(thread)]))) for thread in threads)
    check_memory(len(frames) * BYTES_OF_FRAME + stacks * BYTES_OF_STACK, size)
    kinds = list(dict.fromkeys(map(_kind, threads)))
    builder = ProfileBuilder(kinds, MAPPING)
    locations = [builder.frame_location(_read_frame(frame)) for frame in frames]
    total = 0
    for thread in threads:
        alone = len(threads) == 1 and thread.get("name") == document.get("name")
        labels = () if alone else (Label(THREAD, _text(thread, "name")),)
        column = kinds.index(_kind(thread))
        read_stacks = _of_samples if _type(thread) == "sampled" else _of_events
        for stack, value in read_stacks(thread, locations):
            total += value
            if total > _LARGEST_VALUE:
                raise _invalid("its weights are too large to add up")
            values = [0] * len(kinds)
            values[column] = value
            builder.add_locations(stack, values, labels)
    return builder.build()


def _read_frame(value: Any) -> Frame:
    frame = members(value)
    name, line = _text(frame, "name"), frame.get("line")
    return Frame(Function(name, name, _text(frame, "file")), line if type(line) is int and 0 < line < 1 << 31 else 0)


def _type(thread: dict[str, Any]) -> str:
    kind = thread.get("type")
    if kind not in ("sampled", "evented"):
        raise _invalid(f"it holds a profile of type {brief(kind)}")
    return str(kind)


def _of_samples(thread: dict[str, Any], locations: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Stacks, leaf-first, each with its weight in the unit of the sample type."""
    factor = _factor(thread)
    samples, weights = items(thread.get("samples")), items(thread.get("weights"))
    if len(samples) != len(weights):
        raise _invalid(f"it has {len(samples)} samples but {len(weights)} weights")
    for sample, weight in zip(samples, weights, strict=True):
        stack = tuple([_location(frame, locations) for frame in reversed(items(sample))])
        yield stack, _value(weight, factor)


def _of_events(thread: dict[str, Any], locations: Sequence[int]) -> Iterator[tuple[tuple[int, ...], int]]:
    """As `_of_samples`. The time between an event and the next one belongs to the stack that is open then.

    A frame that is still open after the last event is so until the profile's end.
    """
    factor, frames, events = _factor(thread), OpenFrames(), items(thread.get("events"))
    last = _value(thread.get("startValue", 0), factor)
    for event in map(members, events):
        at, location = _value(event.get("at"), factor), _location(event.get("frame"), locations)
        frames.stay(_passed(last, at))
        last = at
        match event.get("type"):
            case "O":
                frames.open(location)
            case "C" if frames.close(location):
                pass
            case kind:
                raise _invalid(f"an event of type {brief(kind)} at {brief(event['at'])} fits no frame that is open")
    frames.stay(_passed(last, max(last, _value(thread.get("endValue", 0), factor))))
    check_frames(frames.frame_count(), len(events) * _SHORTEST_EVENT_BYTES)
    yield from frames.stacks()


def _passed(before: int, now: int) -> int:
    if now < before:
        raise _invalid("its events are not in the order of their times")
    return now - before


def _value(weight: Any, factor: int) -> int:
    """A weight in the unit of the sample type; less than 2^63."""
    if type(weight) not in (int, float) or not weight >= 0:
        raise _invalid(f"{brief(weight)} is not a weight")
    if weight * factor > _LARGEST_VALUE:
        raise _invalid(f"{brief(weight)} is too large for a weight")
    value: int = round(weight * factor)
    return min(value, _LARGEST_VALUE)


def _location(index: Any, locations: Sequence[int]) -> int:
    if type(index) is not int or not 0 <= index < len(locations):
        raise _invalid(f"a sample refers to a frame {brief(index)} that it does not hold")
    return locations[index]


def _kind(thread: dict[str, Any]) -> ValueType:
    unit = thread.get("unit", "none")
    if unit not in _UNITS:
        raise _invalid(f"{brief(unit)} is not a unit")
    return _TYPES.get(unit, _TIME)


def _factor(thread: dict[str, Any]) -> int:
    """Nanoseconds in the thread's unit of time; 1 for other units."""
    number, name = scale(1, str(thread.get("unit")), _TIME.unit)
    return round(number) if name == "ns" else 1


def _text(mapping: dict[str, Any], key: str) -> str:
    value = mapping.get(key)
    return clean(value) if isinstance(value, str) else ""


def _invalid(reason: str) -> ProfileFormatError:
    return ProfileFormatError(
        f"this is not a speedscope profile: {reason}", "pprofpy reads its sampled and evented ones"
    )
