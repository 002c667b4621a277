"""From the message of a pprof file to a Profile.

Nothing expands samples into objects. Stacks, value rows and label sets are first told apart as raw bytes; each
distinct one is decoded once, by NumPy.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.formats.document import DocumentError, collection, parse
from pprofpy.formats.protowire import (
    BYTES,
    VARINT,
    bytes_field,
    corrupt,
    decode_runs,
    decode_varints,
    fields,
    read_varint,
    signed,
    varint,
)
from pprofpy.model.profile import Collection, Function, Label, LabelSet, Line, Location, Mapping, Profile, ValueType
from pprofpy.model.stack_table import Ints, Stacks, offsets_of

COLLECTION_COMMENT = "#pprofpy:"
"""Starts the comment in which a Collection is saved; other readers hide comments that begin with '#'."""

EXTENSION_FIELD = 1000
"""Far from the numbers that profile.proto gives away."""

_SAMPLE_TAG, _LOCATIONS_TAG, _VALUES_TAG, _LABEL_TAG = 0x12, 0x0A, 0x12, 0x1A
_MESSAGES, _NUMBERS = frozenset({1, 3, 4, 5, 6, 11, 13, EXTENSION_FIELD}), frozenset({7, 8, 9, 10, 12, 13, 14, 15})
_MOST_TYPES = 256

_SAMPLE_COST, _STACK_COST, _LABELS_COST = 24, 200, 300
_COSTS = {3: 500, 4: 450, 5: 450, 6: 80, 13: 200}
"""Bytes of memory that an entry of each kind takes at most, without what it holds; by field number for messages."""


@dataclass(slots=True)
class Raw:
    """The top level of a profile message, its parts still undecoded; small, however many and empty they are.

    Attributes:
        stacks: Packed location ids -> index.
        label_sets: Label fields -> index.
        sample_stacks, sample_labels: For each sample an index into these.
        values: The packed values of all samples, end to end.
        value_ends: For each sample, where its values end.
        spans: Field number -> where each message of that number starts and ends.
        numbers: Field number -> the last value given.
        comments: Field 13, where it is not packed.
    """

    stacks: dict[bytes, int] = field(default_factory=dict)
    label_sets: dict[bytes, int] = field(default_factory=lambda: {b"": 0})
    sample_stacks: array[int] = field(default_factory=lambda: array("q"))
    sample_labels: array[int] = field(default_factory=lambda: array("q"))
    values: bytearray = field(default_factory=bytearray)
    value_ends: array[int] = field(default_factory=lambda: array("q", [0]))
    spans: dict[int, array[int]] = field(default_factory=lambda: {number: array("q") for number in _MESSAGES})
    numbers: dict[int, int] = field(default_factory=dict)
    comments: array[int] = field(default_factory=lambda: array("Q"))

    def add_sample(self, locations: bytes, values: bytes, labels: bytes) -> None:
        """Take in a sample; arguments are packed as in the file."""
        self.sample_stacks.append(self.stacks.setdefault(locations, len(self.stacks)))
        self.values += values
        self.value_ends.append(len(self.values))
        self.sample_labels.append(self.label_sets.setdefault(labels, len(self.label_sets)))

    def add_number(self, number: int, value: int) -> None:
        """Take in a number of the top level, by its field."""
        if number == 13:
            self.comments.append(value)
        elif number in _NUMBERS:
            self.numbers[number] = value

    def messages(self, number: int) -> Iterator[tuple[int, int]]:
        """Where each message of a field starts and ends."""
        places = iter(self.spans[number])
        return zip(places, places, strict=True)

    def count(self, number: int) -> int:
        """How many messages a field has."""
        return len(self.spans[number]) // 2

    def cost(self) -> int:
        """Bytes of memory that the profile will need, from above."""
        entries = sum(self.count(number) * each for number, each in _COSTS.items()) + 200 * len(self.comments)
        samples = len(self.sample_stacks) * (_SAMPLE_COST + 8 * self.count(1))
        return entries + samples + len(self.stacks) * _STACK_COST + len(self.label_sets) * _LABELS_COST


def scan(data: bytes) -> Raw:
    """Split the profile into its top-level fields. With a million samples, this loop is the hot one.

    Raises:
        ProfileFormatError: The message is damaged.
    """
    raw = Raw()
    position, size = 0, len(data)
    while position < size:
        if data[position] == _SAMPLE_TAG:
            # One byte tells the length of most samples: worth sparing a call.
            length, start = data[position + 1], position + 2
            if length >= 0x80:
                length, start = read_varint(data, position + 1)
            position = start + length
            if position > size:
                raise corrupt("it ends in the middle of a sample")
            _scan_sample(data, start, position, raw)
            continue
        number, wire_type, value, position = next(fields(data, position, size))
        if wire_type == BYTES and number in _MESSAGES:
            raw.spans[number].append(value)
            raw.spans[number].append(position)
        elif wire_type == VARINT:
            raw.add_number(number, value)
    return raw


def _scan_sample(data: bytes, position: int, end: int, raw: Raw) -> None:
    """Tell a sample's three parts apart without decoding them.

    The usual layout (packed locations, packed values, labels, each length below 128) is recognized by its tags; any
    other legal one goes through `_sample_parts`.
    """
    if end - position > 4 and data[position] == _LOCATIONS_TAG and data[position + 1] < 0x80:
        middle = position + 2 + data[position + 1]
        if middle + 1 < end and data[middle] == _VALUES_TAG and data[middle + 1] < 0x80:
            tail = middle + 2 + data[middle + 1]
            if tail == end or (tail < end and data[tail] == _LABEL_TAG):
                raw.add_sample(data[position + 2 : middle], data[middle + 2 : tail], data[tail:end])
                return
    raw.add_sample(*_sample_parts(data, position, end))


def _sample_parts(data: bytes, position: int, end: int) -> tuple[bytes, bytes, bytes]:
    """A sample's packed location ids, packed values and label fields, however the writer arranged them."""
    parts = {1: bytearray(), 2: bytearray(), 3: bytearray()}
    for number, wire_type, value, stop in fields(data, position, end):
        if number not in parts:
            continue
        if wire_type == VARINT and number != 3:
            parts[number] += varint(value)
        elif wire_type != BYTES:
            raise corrupt(f"a sample's field {number} has the wrong wire type")
        elif number == 3:
            parts[3] += bytes_field(3, data[value:stop])
        else:
            parts[number] += data[value:stop]
    return bytes(parts[1]), bytes(parts[2]), bytes(parts[3])


_T = TypeVar("_T")
_Message = dict[int, int]
"""A flat message: field number -> number, for messages whose fields are all scalar and not repeated."""


class Decoder:
    """Turns the raw parts into a Profile. Ids in the file are arbitrary numbers; ours are positions in tables."""

    def __init__(self, data: bytes, raw: Raw) -> None:
        self._data = data
        self._raw = raw
        self._strings = [data[start:end].decode("utf-8", "replace") for start, end in raw.messages(6)]
        self._known_labels: dict[bytes, Label] = {}

    def profile(self) -> Profile:
        """All of it.

        Raises:
            ProfileFormatError: What it says contradicts itself.
        """
        raw = self._raw
        if not self._strings or not raw.count(1):
            raise ProfileFormatError(
                "this is not a pprof profile",
                "pprofpy reads pprof files (.pb.gz); see 'pprofpy export --help'",
            )
        if raw.count(1) > _MOST_TYPES:
            raise corrupt(f"it has {raw.count(1)} sample types")
        sample_types = tuple(self._value_type(*span) for span in raw.messages(1))
        mapping_ids, mappings = self._table(3, self._mapping)
        function_ids, functions = self._table(5, self._function)
        location_ids: dict[int, int] = {}
        locations: list[Location] = []
        for start, end in raw.messages(4):
            identity, location = self._location(start, end, mapping_ids, function_ids)
            _claim(location_ids, identity, "location")
            locations.append(location)
        comments, saved = _split_comments(self._comments())
        period_type = list(raw.messages(11))[-1:]
        return Profile(
            sample_types,
            functions=functions,
            mappings=mappings,
            locations=locations,
            stacks=self._stacks(location_ids),
            label_sets=[self._labels(encoded) for encoded in raw.label_sets],
            sample_stacks=np.frombuffer(raw.sample_stacks, np.int64),
            sample_labels=np.frombuffer(raw.sample_labels, np.int64),
            values=self._values(len(sample_types)),
            period_type=self._value_type(*period_type[0]) if period_type else None,
            period=self._number(12),
            time_ns=self._number(9),
            duration_ns=self._number(10),
            default_sample_type=self._string(self._number(14)),
            drop_frames=self._string(self._number(7)),
            keep_frames=self._string(self._number(8)),
            comments=comments,
            doc_url=self._string(self._number(15)),
            collection=saved,
        )

    def _number(self, number: int) -> int:
        return signed(self._raw.numbers.get(number, 0))

    def _string(self, index: int) -> str:
        if not 0 <= index < len(self._strings):
            raise corrupt("it refers to a text that it does not hold")
        return self._strings[index]

    def _comments(self) -> list[str]:
        """All comments; together no longer than the file, since each is written once."""
        packed = b"".join(self._data[start:end] for start, end in self._raw.messages(13))
        found = [self._string(index) for index in (*self._raw.comments, *decode_varints(packed)[0].tolist())]
        if sum(map(len, found)) > len(self._data):
            raise corrupt("its comments repeat each other")
        return found

    def _scalars(self, start: int, end: int) -> _Message:
        return {number: value for number, kind, value, _ in fields(self._data, start, end) if kind == VARINT}

    def _value_type(self, start: int, end: int) -> ValueType:
        message = self._scalars(start, end)
        return ValueType(self._string(message.get(1, 0)), self._string(message.get(2, 0)))

    def _table(self, number: int, decode: Callable[[_Message], _T]) -> tuple[dict[int, int], list[_T]]:
        """A table of flat messages: where each id is, and the entries."""
        ids: dict[int, int] = {}
        entries: list[_T] = []
        for start, end in self._raw.messages(number):
            message = self._scalars(start, end)
            _claim(ids, message.get(1, 0), "function" if number == 5 else "mapping")
            entries.append(decode(message))
        return ids, entries

    def _function(self, message: _Message) -> Function:
        name, system_name, filename = (self._string(message.get(number, 0)) for number in (2, 3, 4))
        return Function(name, system_name, filename, signed(message.get(5, 0)))

    def _mapping(self, message: _Message) -> Mapping:
        start, limit, offset = (message.get(number, 0) for number in (2, 3, 4))
        filename, build_id = self._string(message.get(5, 0)), self._string(message.get(6, 0))
        return Mapping(
            filename, start, limit, offset, build_id, *(bool(message.get(number)) for number in (7, 8, 9, 10))
        )

    def _location(
        self, start: int, end: int, mapping_ids: dict[int, int], function_ids: dict[int, int]
    ) -> tuple[int, Location]:
        message: _Message = {}
        lines = []
        for number, wire_type, value, stop in fields(self._data, start, end):
            if wire_type == VARINT:
                message[number] = value
            elif wire_type == BYTES and number == 4:
                line = self._scalars(value, stop)
                function = _lookup(function_ids, line.get(1, 0), "function")
                lines.append(Line(function, signed(line.get(2, 0)), signed(line.get(3, 0))))
        mapping = message.get(2, 0)
        where = _lookup(mapping_ids, mapping, "mapping") if mapping else -1
        return message.get(1, 0), Location(tuple(lines), where, message.get(3, 0), bool(message.get(5)))

    def _labels(self, encoded: bytes) -> LabelSet:
        labels = []
        for number, wire_type, start, end in fields(encoded, 0, len(encoded)):
            if number != 3 or wire_type != BYTES:
                raise corrupt("a sample has its fields in an order that no tool writes")
            message = encoded[start:end]
            if message not in self._known_labels:
                self._known_labels[message] = self._label(message)
            labels.append(self._known_labels[message])
        return tuple(labels)

    def _label(self, encoded: bytes) -> Label:
        message = {number: value for number, kind, value, _ in fields(encoded, 0, len(encoded)) if kind == VARINT}
        key, text = self._string(message.get(1, 0)), self._string(message.get(2, 0))
        unit = self._string(message.get(4, 0))
        return Label(key, text or signed(message.get(3, 0)) if 2 not in message else text, unit)

    def _stacks(self, location_ids: dict[int, int]) -> Stacks:
        packed = list(self._raw.stacks)
        edges = offsets_of(np.fromiter(map(len, packed), np.int64, len(packed)))
        ids, offsets = decode_runs(b"".join(packed), edges)
        known = np.fromiter(location_ids, np.uint64, len(location_ids))
        order = np.argsort(known).astype(np.int64)
        known, places = known[order], ids.view(np.int64)
        for start in range(0, len(ids), _PIECE):  # in place and piece by piece: stacks may be most of the file
            piece = ids[start : start + _PIECE]
            found = np.searchsorted(known, piece)
            if not len(known) or found.max() >= len(known) or (known[found] != piece).any():
                raise corrupt("a sample refers to a location that it does not hold")
            places[start : start + _PIECE] = order[found]
        return Stacks(offsets, places)

    def _values(self, width: int) -> Ints:
        numbers, offsets = decode_runs(self._raw.values, np.frombuffer(self._raw.value_ends, np.int64))
        if (np.diff(offsets) != width).any():
            raise corrupt(f"a sample does not have the {width} values that the sample types demand")
        return numbers.view(np.int64).reshape(-1, width)


_PIECE = 1 << 17


def _claim(ids: dict[int, int], identity: int, kind: str) -> None:
    if identity == 0 or identity in ids:
        raise corrupt(f"a {kind} has the id {identity}, which is reserved or taken")
    ids[identity] = len(ids)


def _lookup(ids: dict[int, int], identity: int, kind: str) -> int:
    if identity not in ids:
        raise corrupt(f"it refers to a {kind} that it does not hold")
    return ids[identity]


def _split_comments(comments: Sequence[str]) -> tuple[tuple[str, ...], Collection]:
    """Free comments, and the Collection that one of them may hold."""
    free = tuple(comment for comment in comments if not comment.startswith(COLLECTION_COMMENT))
    saved = Collection()
    for comment in comments:
        if comment.startswith(COLLECTION_COMMENT):
            saved = saved.merge(_decode_collection(comment.removeprefix(COLLECTION_COMMENT)))
    return free, saved


def _decode_collection(text: str) -> Collection:
    """A saved Collection. A file from elsewhere may hold anything here: what does not fit is left out."""
    try:
        return collection(parse(text.encode()))
    except DocumentError:
        return Collection()
