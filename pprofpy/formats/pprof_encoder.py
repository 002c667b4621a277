"""From a Profile to the message of a pprof file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np

from pprofpy.formats.pprof_decoder import COLLECTION_COMMENT
from pprofpy.formats.protowire import (
    bytes_field,
    encode_varints,
    number_field,
)
from pprofpy.model.profile import Collection, Function, Label, Location, Mapping, Profile, ValueType
from pprofpy.model.stack_table import Ints


class Encoder:
    """Turns a Profile into the fields of its message."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {"": 0}

    def parts(self, profile: Profile) -> Iterator[bytes]:
        """The message, in pieces to be laid end to end."""
        yield b"".join(bytes_field(1, self._value_type(kind)) for kind in profile.sample_types)
        yield from self._samples(profile)
        yield b"".join(
            bytes_field(3, self._mapping(index, mapping)) for index, mapping in enumerate(profile.mappings, 1)
        )
        yield b"".join(
            bytes_field(4, self._location(index, location)) for index, location in enumerate(profile.locations, 1)
        )
        yield b"".join(
            bytes_field(5, self._function(index, function)) for index, function in enumerate(profile.functions, 1)
        )
        tail = self._tail(profile)
        yield b"".join(bytes_field(6, text.encode("utf-8", "replace")) for text in self._strings)
        yield tail

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _texts(self, first_field: int, *texts: str) -> bytes:
        """String references in consecutive fields."""
        return b"".join(number_field(first_field + i, self._string(text)) for i, text in enumerate(texts))

    def _value_type(self, kind: ValueType) -> bytes:
        return self._texts(1, kind.type, kind.unit)

    def _samples(self, profile: Profile) -> Iterator[bytes]:
        labels = [b"".join(bytes_field(3, self._label(label)) for label in labels) for labels in profile.label_sets]
        stacks, stack_edges = _packed_rows(profile.stacks.locations + 1, profile.stacks.offsets)
        width = len(profile.sample_types)
        values, value_edges = _packed_rows(
            profile.values.reshape(-1), np.arange(len(profile) + 1, dtype=np.int64) * width
        )
        encoded_stacks = [
            bytes_field(1, stacks[stack_edges[i] : stack_edges[i + 1]]) for i in range(len(profile.stacks))
        ]
        rows = zip(profile.sample_stacks.tolist(), profile.sample_labels.tolist(), strict=True)
        for row, (stack, label_set) in enumerate(rows):
            numbers = bytes_field(2, values[value_edges[row] : value_edges[row + 1]])
            yield bytes_field(2, encoded_stacks[stack] + numbers + labels[label_set])

    def _label(self, label: Label) -> bytes:
        if isinstance(label.value, str):
            return self._texts(1, label.key, label.value)
        return self._texts(1, label.key) + number_field(3, label.value) + self._texts(4, label.unit)

    def _mapping(self, identity: int, mapping: Mapping) -> bytes:
        numbers = (identity, mapping.start, mapping.limit, mapping.offset)
        flags = (
            mapping.has_functions,
            mapping.has_filenames,
            mapping.has_line_numbers,
            mapping.has_inline_frames,
        )
        return (
            b"".join(number_field(i, number) for i, number in enumerate(numbers, 1))
            + self._texts(5, mapping.filename, mapping.build_id)
            + b"".join(number_field(i, flag) for i, flag in enumerate(flags, 7))
        )

    def _location(self, identity: int, location: Location) -> bytes:
        lines = (
            b"".join(number_field(i, number) for i, number in enumerate((line.function + 1, line.line, line.column), 1))
            for line in location.lines
        )
        return (
            number_field(1, identity)
            + number_field(2, location.mapping + 1)
            + number_field(3, location.address)
            + b"".join(bytes_field(4, line) for line in lines)
            + number_field(5, location.is_folded)
        )

    def _function(self, identity: int, function: Function) -> bytes:
        names = self._texts(2, function.name, function.system_name, function.filename)
        return number_field(1, identity) + names + number_field(5, function.start_line)

    def _tail(self, profile: Profile) -> bytes:
        comments = [*profile.comments]
        if profile.collection != Collection():
            comments.append(COLLECTION_COMMENT + json.dumps(asdict(profile.collection)))
        period_type = profile.period_type
        return (
            self._texts(7, profile.drop_frames, profile.keep_frames)
            + number_field(9, profile.time_ns)
            + number_field(10, profile.duration_ns)
            + (bytes_field(11, self._value_type(period_type)) if period_type else b"")
            + number_field(12, profile.period)
            + b"".join(number_field(13, self._string(comment)) for comment in comments)
            + self._texts(14, profile.default_sample_type, profile.doc_url)
        )


def _packed_rows(numbers: Ints, offsets: Ints) -> tuple[bytes, list[int]]:
    """Encode rows of numbers as packed runs laid end to end; returns them and where each row starts."""
    encoded, starts = encode_varints(numbers)
    return encoded, starts[offsets].tolist()
