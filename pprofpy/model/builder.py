"""ProfileBuilder: collects samples into a Profile, interning as it goes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pprofpy.model.profile import PYTHON_MAPPING, Frame, Function, LabelSet, Line, Location, Mapping, Profile, ValueType
from pprofpy.model.stack_table import Stacks


class ProfileBuilder:
    """Collects samples into a Profile, interning as it goes.

    Args:
        sample_types: What each value of a sample means.
        mapping: The mapping of all frames for which `add` gives none.
    """

    def __init__(self, sample_types: Sequence[ValueType], mapping: Mapping = PYTHON_MAPPING) -> None:
        self.sample_types = tuple(sample_types)
        self._mapping = mapping
        self._functions: dict[Function, int] = {}
        self._mappings: dict[Mapping, int] = {}
        self._locations: dict[Location, int] = {}
        self._frames: dict[tuple[Frame, Mapping], int] = {}
        self._stacks: dict[tuple[int, ...], int] = {}
        self._label_sets: dict[LabelSet, int] = {}
        self._rows: dict[tuple[int, int], list[int]] = {}

    def function(self, function: Function) -> int:
        """Intern a function; returns its index."""
        return self._functions.setdefault(function, len(self._functions))

    def frame_location(self, frame: Frame, mapping: Mapping | None = None) -> int:
        """Intern a location that holds just this frame; returns its index."""
        key = (frame, mapping or self._mapping)
        index = self._frames.get(key)
        if index is None:
            line = Line(self.function(frame.function), frame.line, frame.column)
            where = self._mappings.setdefault(key[1], len(self._mappings))
            index = self._frames[key] = self.location(Location((line,), where))
        return index

    def location(self, location: Location) -> int:
        """Intern a location whose lines and mapping already refer to this builder's tables; returns its index."""
        return self._locations.setdefault(location, len(self._locations))

    def mapping(self, mapping: Mapping) -> int:
        """Intern a mapping; returns its index."""
        return self._mappings.setdefault(mapping, len(self._mappings))

    def add(self, stack: Iterable[Frame], values: Sequence[int], labels: LabelSet = ()) -> None:
        """Add a sample; samples with equal stack and labels are summed.

        Args:
            stack: Frames, leaf-first.
            values: One per sample type, in its unit.
            labels: What else is known of the sample.
        """
        self.add_locations(tuple(self.frame_location(frame) for frame in stack), values, labels)

    def add_locations(self, stack: tuple[int, ...], values: Sequence[int], labels: LabelSet = ()) -> None:
        """As `add`, for a stack of interned locations (leaf-first)."""
        key = (
            self._stacks.setdefault(stack, len(self._stacks)),
            self._label_sets.setdefault(labels, len(self._label_sets)),
        )
        row = self._rows.get(key)
        if row is None:
            self._rows[key] = list(values)
        else:
            for column, value in enumerate(values):
                row[column] += value

    def build(self) -> Profile:
        """The Profile of everything added so far."""
        keys = np.array(list(self._rows), np.int64).reshape(-1, 2)
        return Profile(
            self.sample_types,
            functions=list(self._functions),
            mappings=list(self._mappings),
            locations=list(self._locations),
            stacks=Stacks.of(self._stacks),
            label_sets=list(self._label_sets) or [()],
            sample_stacks=keys[:, 0].copy(),
            sample_labels=keys[:, 1].copy(),
            values=np.array(list(self._rows.values()), np.int64).reshape(-1, len(self.sample_types)),
        )
