"""The strict reader of what `marshal` writes in a target: everything that an agent says, and nothing else."""

from __future__ import annotations

import marshal
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pprofpy.collectors.heapagent import plain
from pprofpy.collectors.heapagent.samples import SamplerTables
from pprofpy.collectors.heapagent.traced_blocks import TracedBlocks
from pprofpy.errors import ImplausibleTargetError

NUMBERS = st.integers(-(2**63) + 1, 2**63 - 1)
TEXTS = st.text(st.characters(), max_size=300)
LEAVES = NUMBERS | TEXTS | st.binary(max_size=300) | st.booleans() | st.none()
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=40) | st.lists(inner, max_size=40).map(tuple),
    max_leaves=100,
)


@given(PLAIN, st.sampled_from([2, 4]))
def test_what_marshal_writes_is_read(data: Any, version: int) -> None:
    assert plain.decode(marshal.dumps([data, data, (data,)], version)) == [data, data, (data,)]


@pytest.mark.parametrize(
    "data", [list(range(100_000)), ["ü" * 1000], [("a.py", 3)] * 1000, b"\xff" * 100_000, "a" * 300]
)
def test_what_is_large_is_read_too(data: Any) -> None:
    for version in (2, 4):
        assert plain.decode(marshal.dumps(data, version)) == data


@given(st.binary(max_size=200))
def test_anything_else_is_refused(content: bytes) -> None:
    try:
        plain.decode(content)
    except ImplausibleTargetError:
        return


@given(PLAIN, st.data())
def test_what_was_damaged_is_refused_or_read(data: Any, draw: st.DataObject) -> None:
    content = bytearray(marshal.dumps([data, data], 4))
    for _ in range(draw.draw(st.integers(1, 3))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    try:
        plain.decode(bytes(content[: draw.draw(st.integers(0, len(content)))]))
    except ImplausibleTargetError:
        return


@pytest.mark.parametrize(
    "content",
    [
        b"[\xff\xff\xff\x7f",
        b"(\xff\xff\xff\x7f",
        b"s\xff\xff\xff\x7f",
        b"u\xff\xff\xff\xff",
        b"l\xff\xff\xff\x7f",
        b"l\0\0\0\x80",
        b"l\0\0\0\0",
        b"[\1\0\0\0" * 1_000_000,
        b"\xdb\1\0\0\0r\0\0\0\0",
        b"r\0\0\0\0",
        b"[\x14\0\0\0" + b"r\0\0\0\0" * 20,
        b"i\0\0\0",
        b"NN",
        b"",
        b"u\1\0\0\0\xff",
        b"z\1\xff",
        b"g" + bytes(8),
        b"{0",
        b"c" + bytes(100),
        b"[\0\0\x20\0" + b"N" * (2 << 20),
    ],
)
def test_bombs_and_nonsense_are_refused_at_once(content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ImplausibleTargetError, match="makes no sense"):
            plain.decode(content)
        assert tracemalloc.get_traced_memory()[1] < (40 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("value", [(1, 2), [1, "a"], (True, "a"), (1,), (1, "a", 2), None, "ab"])
def test_records_of_another_kind_are_refused(value: Any) -> None:
    with pytest.raises(ImplausibleTargetError):
        plain.fields(value, int, str)


TABLES: list[Any] = [
    [("a.py", "f", 1)], [(0, 2), (0, 3)], bytes(32), bytes(8), bytes(80), bytes(56), 1, [(7, "main")], [(8,)],
]  # fmt: skip


def test_tables_are_read() -> None:
    assert len(SamplerTables.of(iter([tuple(TABLES)])).cells) == 2


@pytest.mark.parametrize(
    ("place", "forged"),
    [
        (0, [("a.py", "f", 1 << 31)]),
        (0, [("a.py", "f", "1")]),
        (0, [("a.py", b"f", 1)]),
        (0, [("a.py", "f", 1)] * 65537),
        (1, [(1, 2), (0, 3)]),
        (1, [(-1, 2), (0, 3)]),
        (1, [(0, 1 << 40), (0, 3)]),
        (2, bytes(31)),
        (2, b"\xff" * 32),
        (2, bytes(8) + b"\1\0\0\0\2\0\0\0" + bytes(16)),
        (2, (bytes(8) + b"\0\0\0\0\2\0\0\0") * 2),
        (3, b"\2\0\0\0" * 2),
        (4, bytes(79)),
        (4, b"\2" + bytes(79)),
        (4, bytes(8) + b"\xff" * 7 + b"\x7f" + bytes(64)),
        (5, bytes(48)),
        (5, b"\xff" * 56),
        (6, "yes"),
        (7, [("main", 7)]),
        (7, [(7, "main", 1)]),
        (8, [8]),
    ],
)
def test_tables_that_contradict_themselves_are_refused(place: int, forged: Any) -> None:
    tables = [*TABLES[:place], forged, *TABLES[place + 1 :]]

    with pytest.raises(ImplausibleTargetError, match="makes no sense"):
        SamplerTables.of(iter([tuple(tables)]))


HERE = (("/srv/a.py", 1),)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [(1, 2)],
        [(-1, True)],
        [(1, True), [(HERE, -1, 2, 0)]],
        [(1, True), [(HERE, 1, 1 << 60, 0)]],
        [(1, True), [(HERE, 1, 2, 7)]],
        [(1, True), [((("/srv/a.py", 1 << 33),), 1, 2, 0)]],
        [(1, True), [(("/srv/a.py",), 1, 2, 0)]],
        [(1, True), [([("/srv/a.py", 1)], 1, 2, 0)]],
        [(1, False), [HERE]],
        [(1, False), [HERE], [1, 2], [1]],
        [(1, False), [HERE, HERE], [1, 2], [1]],
        [(1, False), [HERE], [1 << 50], [1]],
        [(1, False), [HERE], [-1], [1]],
        [(1, False), [7], [1], [1]],
        [(1, False), HERE, [1], [1]],
    ],
)
def test_traces_that_make_no_sense_are_refused(pieces: list[Any]) -> None:
    with pytest.raises(ImplausibleTargetError, match="makes no sense"):
        TracedBlocks.of(iter(pieces))


def test_stacks_that_find_no_room_are_summed_up_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pprofpy.collectors.heapagent.traced_blocks._MOST_STACKS", 2)
    sums = [((("/srv/a.py", line),), 1, 10, 0) for line in range(5)]

    traces = TracedBlocks.of(iter([(1, True), sums]))

    assert traces.lost_stacks == 3
    assert sum(size for _, size in traces.blocks.values()) == 50
