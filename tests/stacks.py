"""Hand-built profiles: `profile_of({"main > work > inner": 3})` reads like the stacks it stands for."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import replace

from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Frame, Function, LabelSet, Profile, ValueType

CPU_TYPES = (ValueType("samples", "count"), ValueType("cpu", "nanoseconds"))
PERIOD_NS = 10_000_000


def frame(name: str) -> Frame:
    """A frame from `name` or `name:line`; its file is named after the function."""
    function, _, line = name.partition(":")
    return Frame(Function(function, function, f"/srv/{function}.py"), int(line or 1))


def stack(text: str) -> tuple[Frame, ...]:
    """Root first in the text, as one reads a call chain; leaf-first in the result, as profiles store it."""
    return tuple(frame(name.strip()) for name in reversed(text.split(">"))) if text else ()


def profile_of(counts: Dict[str, int] | Dict[tuple[str, LabelSet], int]) -> Profile:
    """A CPU profile at 100 Hz: stack text (or stack text and labels) -> number of samples."""
    builder = ProfileBuilder(CPU_TYPES)
    for key, count in counts.items():
        text, labels = key if isinstance(key, tuple) else (key, ())
        builder.add(stack(text), (count, count * PERIOD_NS), labels)
    return replace(builder.build(), period_type=CPU_TYPES[1], period=PERIOD_NS)


def as_text(profile: Profile) -> dict[str, int]:
    """The inverse of `profile_of`, without labels: stack text -> number of samples."""
    counts: dict[str, int] = {}
    for sample in profile.samples():
        text = " > ".join(frame.function.name for frame in reversed(sample.stack))
        counts[text] = counts.get(text, 0) + sample.values[0]
    return counts
