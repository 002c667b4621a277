"""The pprof format, held against Google's protobuf runtime and against its own laws."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import numpy as np
import pytest

from pprofpy.errors import ProfileFormatError
from pprofpy.formats import decode, pprof, pprof_decoder
from pprofpy.formats.limits import UNPACKED_BYTES_VARIABLE
from pprofpy.formats.protowire import bytes_field, decode_varints, encode_varints, number_field, varint
from pprofpy.model.profile import Collection, Function, Label, Line, Location, Mapping, Profile, ValueType
from pprofpy.model.stack_table import Stacks
from tests import profile_pb2
from tests.stacks import CPU_TYPES, profile_of

RICH = Profile(
    sample_types=CPU_TYPES,
    functions=[
        Function("app.main", "main", "/srv/app.py", 3),
        Function("app.Ünïcode <b>&;\n", "x", "/srv/with space.py"),
    ],
    mappings=[
        Mapping("[python]", has_functions=True, has_filenames=True, has_line_numbers=True),
        Mapping("/lib/x.so", 0x1000, 2**64 - 1, 0x20, "cafe", has_inline_frames=True),
    ],
    locations=[
        Location((Line(0, 17, 4),), 0),
        Location((Line(1, 300), Line(0, 2)), 1, 2**63 + 5, is_folded=True),
        Location((), -1, 0xDEAD),
    ],
    stacks=Stacks.of([[0, 1], [2], [1] * 200]),
    label_sets=[(), (Label("thread", "T 1"), Label("tid", 42), Label("bytes", -4096, "bytes"), Label("zero", 0))],
    sample_stacks=np.array([0, 2, 1, 0]),
    sample_labels=np.array([0, 1, 0, 1]),
    values=np.array([[1, 10], [0, -5], [2**62, 0], [7, 2**40]]),
    period_type=ValueType("cpu", "nanoseconds"),
    period=10_000_000,
    time_ns=1_700_000_000_000_000_000,
    duration_ns=5_000_000_000,
    default_sample_type="cpu",
    drop_frames="x|y",
    keep_frames="z",
    comments=("made by hand", "twice"),
    doc_url="https://example.invalid/doc",
    collection=Collection("hand", "pid 1", asked=10, got=9, late=1, notes=("a note",)),
)


def tables(profile: Profile) -> tuple[object, ...]:
    """Everything in a profile, comparable."""
    return (
        list(profile.samples()),
        profile.functions,
        profile.mappings,
        profile.locations,
        *(
            getattr(profile, name)
            for name in ["sample_types", "period_type", "period", "time_ns", "duration_ns", "default_sample_type"]
        ),
        *(getattr(profile, name) for name in ["drop_frames", "keep_frames", "comments", "doc_url", "collection"]),
    )


def message_of(profile: Profile) -> Any:
    return profile_pb2.Profile.FromString(gzip.decompress(pprof.write(profile)))


def test_what_is_written_is_read_back_unchanged() -> None:
    assert tables(pprof.read(pprof.write(RICH))) == tables(RICH)


def test_protobuf_reads_what_we_write() -> None:
    message = message_of(RICH)

    texts = message.string_table
    assert texts[0] == ""
    assert [(texts[t.type], texts[t.unit]) for t in message.sample_type] == list(CPU_TYPES)
    assert [list(sample.location_id) for sample in message.sample] == [[1, 2], [2] * 200, [3], [1, 2]]
    assert [list(sample.value) for sample in message.sample] == RICH.values.tolist()
    labels = [(texts[x.key], texts[x.str], x.num, texts[x.num_unit]) for x in message.sample[1].label]
    assert labels == [("thread", "T 1", 0, ""), ("tid", "", 42, ""), ("bytes", "", -4096, "bytes"), ("zero", "", 0, "")]
    assert [texts[function.name] for function in message.function] == [f.name for f in RICH.functions]
    assert [(m.id, m.memory_limit, m.has_inline_frames) for m in message.mapping] == [(1, 0, 0), (2, 2**64 - 1, 1)]
    assert [[(x.function_id, x.line, x.column) for x in loc.line] for loc in message.location] == [
        [(1, 17, 4)],
        [(2, 300, 0), (1, 2, 0)],
        [],
    ]
    assert (message.period, message.time_nanos, texts[message.default_sample_type]) == (
        RICH.period,
        RICH.time_ns,
        "cpu",
    )


def test_ids_run_from_1_without_a_gap() -> None:
    message = message_of(RICH)

    for table in (message.mapping, message.location, message.function):
        assert [entry.id for entry in table] == list(range(1, len(table) + 1))


def test_we_read_what_protobuf_writes() -> None:
    ours = gzip.decompress(pprof.write(RICH))
    theirs = profile_pb2.Profile.FromString(ours).SerializeToString()

    assert tables(pprof.read(theirs)) == tables(RICH)
    assert tables(pprof.read(gzip.compress(theirs))) == tables(RICH)


def test_ids_may_be_any_numbers_and_tables_in_any_order() -> None:
    message = message_of(profile_of({"a > b": 3}))
    renumber = {1: 2**64 - 1, 2: 77}
    for location in message.location:
        location.id = renumber[location.id]
    for sample in message.sample:
        sample.location_id[:] = [renumber[identity] for identity in sample.location_id]
    backwards = b"".join(part.SerializeToString() for part in reversed(one_message_a_field(message)))

    assert list(pprof.read(backwards).samples()) == list(profile_of({"a > b": 3}).samples())


def one_message_a_field(message: Any) -> list[Any]:
    """Protobuf messages concatenate: the same profile, one part for each of its fields."""
    parts = []
    for descriptor, _ in message.ListFields():
        part = profile_pb2.Profile()
        part.CopyFrom(message)
        for other, _ in message.ListFields():
            if other.name != descriptor.name:
                part.ClearField(other.name)
        parts.append(part)
    return parts


def test_unpacked_lists_and_unknown_fields_are_read_too() -> None:
    """Encoders of proto2 write repeated numbers one by one; later versions may add fields."""
    sample = b"".join(
        [number_field(1, 1), number_field(2, 6), number_field(1, 2), number_field(2, 60), bytes_field(99, b"new")]
    )
    known = message_of(profile_of({"a > b": 3}))
    known.ClearField("sample")

    profile = pprof.read(known.SerializeToString() + bytes_field(2, sample) + bytes_field(98, b"?"))

    assert [(sample.values, len(sample.stack)) for sample in profile.samples()] == [((6, 60), 2)]


def test_long_samples_take_the_general_path_with_the_same_result() -> None:
    deep = replace(profile_of({"f": 1}), stacks=Stacks.of([[0] * 1000]))

    (sample,) = pprof.read(pprof.write(deep)).samples()

    assert len(sample.stack) == 1000


def test_a_profile_without_samples_is_valid() -> None:
    assert len(pprof.read(pprof.write(profile_of({})))) == 0


def test_losses_travel_in_a_comment_that_other_tools_hide() -> None:
    message = message_of(RICH)

    hidden = [message.string_table[index] for index in message.comment if message.string_table[index].startswith("#")]
    assert len(hidden) == 1
    assert '"late": 1' in hidden[0]


@pytest.mark.parametrize("text", ["{", "[]", '{"asked": "many", "notes": 3}', "[" * 100_000, '{"asked": true}'])
def test_a_strange_collection_comment_is_ignored(text: str) -> None:
    message = message_of(profile_of({"a": 1}))
    message.string_table.append(pprof_decoder.COLLECTION_COMMENT + text)
    message.comment.append(len(message.string_table) - 1)

    assert pprof.read(message.SerializeToString()).collection == Collection()


def test_names_that_are_not_utf8_are_read_with_a_replacement_character() -> None:
    data = gzip.decompress(pprof.write(profile_of({"abc": 1}))).replace(b"abc", b"a\xffc")

    assert pprof.read(data).functions[0].name == "a\ufffdc"


def damaged(change: Callable[[Any], None]) -> bytes:
    message = message_of(profile_of({"a > b": 3}))
    change(message)
    return bytes(message.SerializeToString())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\x1f\x8b", "damaged"),
        (gzip.compress(b""), "not a pprof profile"),
        (pprof.write(RICH)[:-20], "damaged"),
        (gzip.decompress(pprof.write(RICH))[:-1], "damaged"),
        (damaged(lambda m: m.sample[0].location_id.append(9)), "location"),
        (damaged(lambda m: m.sample[0].value.append(9)), "2 values"),
        (damaged(lambda m: m.sample[0].ClearField("value")), "2 values"),
        (damaged(lambda m: m.ClearField("sample_type")), "not a pprof profile"),
        (damaged(lambda m: m.ClearField("function")), "function"),
        (damaged(lambda m: m.ClearField("mapping")), "mapping"),
        (damaged(lambda m: m.ClearField("string_table")), "not a pprof profile"),
        (damaged(lambda m: setattr(m.function[0], "name", 999)), "text"),
        (damaged(lambda m: setattr(m.location[0], "id", m.location[1].id)), "reserved or taken"),
        (damaged(lambda m: setattr(m.location[0], "id", 0)), "reserved or taken"),
    ],
    ids=count(),
)
def test_a_damaged_profile_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ProfileFormatError, match=reason):
        pprof.read(data)


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UNPACKED_BYTES_VARIABLE, "1000")

    with pytest.raises(ProfileFormatError, match="unpacks to more"):
        pprof.read(gzip.compress(b"\0" * 1001))


def test_the_format_is_told_from_the_content() -> None:
    assert len(decode(pprof.write(profile_of({"a": 1})))) == 1
    assert len(decode(gzip.decompress(pprof.write(profile_of({"a": 1}))))) == 1


class TestVarints:
    """The numbers of the wire format."""

    numbers = np.array([0, 1, 127, 128, 300, 2**31, 2**62, 2**63 - 1, -1, -(2**63)])

    def test_encoding_agrees_with_the_simple_way(self) -> None:
        encoded, offsets = encode_varints(self.numbers)

        assert encoded == b"".join(varint(int(number)) for number in self.numbers)
        assert [encoded[start:end] for start, end in pairwise(offsets)] == [
            varint(int(number)) for number in self.numbers
        ]

    def test_decoding_undoes_encoding(self) -> None:
        values, ends = decode_varints(encode_varints(self.numbers)[0])

        assert values.view(np.int64).tolist() == self.numbers.tolist()
        assert ends.tolist() == encode_varints(self.numbers)[1][1:].tolist()

    def test_an_empty_run_is_no_number(self) -> None:
        assert len(decode_varints(b"")[0]) == 0

    @pytest.mark.parametrize("data", [b"\x80", b"\x01\xff", b"\xff" * 10 + b"\x01"])
    def test_cut_or_overlong_numbers_are_refused(self, data: bytes) -> None:
        with pytest.raises(ProfileFormatError):
            decode_varints(data)
