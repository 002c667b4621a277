"""pprof's profile.proto: what we save by default, and what we read from any tool that writes it.

Reading never expands samples into objects. Stacks, value rows and label sets are first told apart as raw bytes; each
distinct one is decoded once, by NumPy.

Source: https://github.com/google/pprof/blob/main/proto/profile.proto
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.formats.document import DocumentError, collection, parse
from pprofpy.formats.limits import check_expansion, check_memory, gunzip
from pprofpy.formats.protowire import (
    BYTES,
    VARINT,
    bytes_field,
    corrupt,
    decode_runs,
    decode_varints,
    encode_varints,
    fields,
    number_field,
    read_varint,
    signed,
    varint,
)
from pprofpy.model.profile import (
    Collection,
    Function,
    Ints,
    Label,
    LabelSet,
    Line,
    Location,
    Mapping,
    Profile,
    Stacks,
    ValueType,
    offsets_of,
)

COLLECTION_COMMENT = "#pprofpy:"
"""Starts the comment in which a Collection is saved; other readers hide comments that begin with '#'."""

EXTENSION_FIELD, SUMMARY_FIELD = 1000, 1001
"""Far from the numbers that profile.proto gives away."""

SUMMARY_WITHIN_BYTES = 16 << 10
"""A summary is found in so many bytes of a file."""

_SAMPLE_TAG, _LOCATIONS_TAG, _VALUES_TAG, _LABEL_TAG = 0x12, 0x0A, 0x12, 0x1A
_GZIP_MAGIC = b"\x1f\x8b"
_MESSAGES, _NUMBERS = frozenset({1, 3, 4, 5, 6, 11, 13, EXTENSION_FIELD}), frozenset({7, 8, 9, 10, 12, 13, 14, 15})
_MOST_TYPES = 256

_SAMPLE_COST, _STACK_COST, _LABELS_COST = 24, 200, 300
_COSTS = {3: 500, 4: 450, 5: 450, 6: 80, 13: 200}
"""Bytes of memory that an entry of each kind takes at most, without what it holds; by field number for messages."""


# -- reading -------------------------------------------------------------------------------------------------------


def read(data: bytes) -> Profile:
    """Decode a profile, gzipped or not.

    Raises:
        ProfileFormatError: `data` is empty, damaged, or no profile at all.
    """
    return read_extended(data)[0]


def read_extended(data: bytes) -> tuple[Profile, bytes]:
    """As `read`, with the content of the field that only we write and read; empty if there is none."""
    if not data:
        raise ProfileFormatError("the file is empty", "record the profile again")
    data = unpack(data)
    try:
        raw = _scan(data)
        check_memory(raw.cost(), len(data))
        profile = _Decoder(data, raw).profile()
    except (IndexError, OverflowError, ValueError) as error:
        raise corrupt(str(error)) from error
    profile.check_valid()
    check_expansion(profile, len(data))
    start, end = [(0, 0), *raw.messages(EXTENSION_FIELD)][-1]
    return profile, data[start:end]


def unpack(data: bytes) -> bytes:
    """The message itself, whether or not it was gzipped.

    Raises:
        ProfileFormatError: It is damaged, or unpacks to more than `limits.unpacked_limit` allows.
    """
    if not data.startswith(_GZIP_MAGIC):
        return data
    try:
        return gunzip(data)
    except (EOFError, zlib.error) as error:
        raise corrupt(f"gzip: {error}") from error


@dataclass(slots=True)
class _Raw:
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
        self.sample_stacks.append(self.stacks.setdefault(locations, len(self.stacks)))
        self.values += values
        self.value_ends.append(len(self.values))
        self.sample_labels.append(self.label_sets.setdefault(labels, len(self.label_sets)))

    def add_number(self, number: int, value: int) -> None:
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


def _scan(data: bytes) -> _Raw:
    """Split the profile into its top-level fields. With a million samples, this loop is the hot one."""
    raw = _Raw()
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


def _scan_sample(data: bytes, position: int, end: int, raw: _Raw) -> None:
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


class _Decoder:
    """Turns the raw parts into a Profile. Ids in the file are arbitrary numbers; ours are positions in tables."""

    def __init__(self, data: bytes, raw: _Raw) -> None:
        self._data = data
        self._raw = raw
        self._strings = [data[start:end].decode("utf-8", "replace") for start, end in raw.messages(6)]
        self._known_labels: dict[bytes, Label] = {}

    def profile(self) -> Profile:
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


# -- writing -------------------------------------------------------------------------------------------------------


def write(profile: Profile, extension: bytes = b"", summary: bytes = b"") -> bytes:
    """Encode a profile as gzipped profile.proto. Ids run from 1, as all readers want them.

    Args:
        profile: The profile.
        extension: Kept in a field that readers of profiles skip, as the format asks them to.
        summary: The same, in the very first field: see `read_summary`.
    """
    compressed = io.BytesIO()
    # The name inside the gzip header marks the file as ours, so that we may overwrite it later.
    with gzip.GzipFile("pprofpy.pb", "wb", compresslevel=6, fileobj=compressed, mtime=0) as stream:
        if summary:
            stream.write(bytes_field(SUMMARY_FIELD, summary))
        for part in _Encoder().parts(profile):
            stream.write(part)
        if extension:
            stream.write(bytes_field(EXTENSION_FIELD, extension))
    return compressed.getvalue()


def read_summary(head: bytes) -> bytes:
    """The summary that `write` put into the first field; empty if there is none.

    Args:
        head: The beginning of a file, SUMMARY_WITHIN_BYTES long or the whole of it.
    """
    try:
        unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, SUMMARY_WITHIN_BYTES)
        number, kind, start, end = next(fields(unpacked, 0, len(unpacked)))
    except (zlib.error, ProfileFormatError, StopIteration):
        return b""
    return unpacked[start:end] if (number, kind) == (SUMMARY_FIELD, BYTES) else b""


class _Encoder:
    """Turns a Profile into the fields of its message."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {"": 0}

    def parts(self, profile: Profile) -> Iterator[bytes]:
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
