"""What a target says of its own structures may be anything: it ends in a result or in an error of ours, and soon."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pprofpy.budget import Budget
from pprofpy.collectors.cpython.blocked_stacks import _thread_states
from pprofpy.collectors.cpython.debugoffsets import (
    COOKIE,
    GC_COLLECTING,
    MEMBERS,
    TABLE_BYTES,
    ImplausibleLayoutError,
    described,
)
from pprofpy.collectors.cpython.dicts import Dicts
from pprofpy.collectors.cpython.living import NotLivingError, prove_living
from pprofpy.collectors.cpython.memory import MOST_BYTES, Memory, SnapshotMemory, UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.versions import (
    FREE_THREADED,
    NO_CFRAME,
    VERSIONS,
    Layout,
    UnknownVersionError,
    Version,
    spelled,
)
from pprofpy.errors import ImplausibleTargetError

RUNTIME, INTERP, THREAD, FRAME, CODE, CODE_TYPE, TEXT = (number << 20 for number in range(1, 8))
ALL = {spelled(number): one for number, one in VERSIONS.items()} | {
    f"{spelled(number)}t": one for number, one in FREE_THREADED.items()
}
ANY_LAYOUT = pytest.mark.parametrize("layout", [one.layout for one in ALL.values()], ids=ALL)
SELF_DESCRIBING = {spelled(number): (number, VERSIONS[number]) for number in MEMBERS} | {
    f"{spelled(number)}t": (number, one) for number, one in FREE_THREADED.items()
}
ANY_THAT_DESCRIBES_ITSELF = pytest.mark.parametrize(("number", "known"), SELF_DESCRIBING.values(), ids=SELF_DESCRIBING)


class Forged(Memory):
    """A memory of our own making: words by their address, zeros elsewhere."""

    def __init__(self, words: Mapping[int, int], *, budget: Budget | None = None) -> None:
        super().__init__(0, budget)
        self.words = dict(words)
        self.reads = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        if self._budget:
            self._budget.take(size)
        if not 0 <= address < 1 << 47 or size > MOST_BYTES:
            raise UnreadableError
        content = bytearray(size)
        for place, word in self.words.items():
            if address - 8 < place < address + size:
                raw = struct.pack("<Q", word)
                for index in range(8):
                    if 0 <= place + index - address < size:
                        content[place + index - address] = raw[index]
        return bytes(content)


def reader(layout: Layout, words: Mapping[int, int]) -> tuple[ObjectReader, Forged]:
    memory = Forged(words)
    return ObjectReader(memory, layout, CODE_TYPE), memory


def one_thread(layout: Layout) -> dict[int, int]:
    return {RUNTIME + layout.interpreters_head: INTERP, INTERP + layout.interp_threads: THREAD}


# -- lists ---------------------------------------------------------------------------------------------------------


@ANY_LAYOUT
@pytest.mark.parametrize("length", [1, 2, 7])
def test_interpreters_in_a_circle_are_walked_once(layout: Layout, length: int) -> None:
    words = {RUNTIME + layout.interpreters_head: INTERP}
    for number in range(length):
        interp = INTERP + number * 8192 * 4
        words[interp + layout.interp_next] = INTERP + (number + 1) % length * 8192 * 4
    ours, memory = reader(layout, words)

    with pytest.raises(UnreadableError, match="leads back"):
        list(ours.thread_states(RUNTIME))
    assert memory.reads < 100


@ANY_LAYOUT
def test_threads_in_a_circle_are_walked_once(layout: Layout) -> None:
    ours, memory = reader(layout, one_thread(layout) | {THREAD + layout.thread_next: THREAD})

    with pytest.raises(UnreadableError):
        list(ours.thread_states(RUNTIME))
    assert memory.reads < 100


def test_interpreters_that_share_their_threads_are_noticed() -> None:
    layout = VERSIONS[3, 12].layout
    other = INTERP + (1 << 16)
    words = one_thread(layout) | {INTERP + layout.interp_next: other, other + layout.interp_threads: THREAD}

    with pytest.raises(UnreadableError):
        list(reader(layout, words)[0].thread_states(RUNTIME))


class Endless(Memory):
    """Every word leads on by 64 KB: lists, stacks and interpreters without end."""

    def read(self, address: int, size: int) -> bytes:
        if self._budget:
            self._budget.take(size)
        return (struct.pack("<Q", address // 65536 * 65536 + 65536) * (size // 8 + 1))[:size]


@ANY_LAYOUT
def test_lists_and_stacks_without_end_have_one(layout: Layout) -> None:
    budget = Budget("a test", steps=400_000, seconds=60)
    ours = ObjectReader(Endless(0, budget), layout, CODE_TYPE)

    with pytest.raises(UnreadableError):
        list(ours.thread_states(RUNTIME))
    with suppress(UnreadableError):
        assert len(ours.frames(THREAD)) <= 5_000


def test_a_budget_ends_what_takes_too_long() -> None:
    ours = ObjectReader(Endless(0, Budget("a test", steps=1_000)), VERSIONS[3, 12].layout, CODE_TYPE)

    with pytest.raises(ImplausibleTargetError):
        list(ours.thread_states(RUNTIME))


@ANY_LAYOUT
def test_frames_in_a_circle_are_walked_once(layout: Layout) -> None:
    cframe = FRAME + 4096
    leaf = {THREAD + layout.thread_frame: FRAME}
    if layout.cframe_frame != NO_CFRAME:
        leaf = {THREAD + layout.thread_frame: cframe, cframe + layout.cframe_frame: FRAME}
    ours, memory = reader(layout, leaf | {FRAME + layout.frame_previous: FRAME, FRAME + layout.frame_code: CODE})

    with pytest.raises(UnreadableError, match="leads back"):
        ours.frames(THREAD)
    assert memory.reads < 100


def test_threads_of_which_all_are_said_to_be_the_same_are_not_compared_each_with_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layout = VERSIONS[3, 12].layout
    count, area = 3_000, (1 << 40, (1 << 40) + (1 << 30))
    monkeypatch.setattr("pprofpy.collectors.cpython.blocked_stacks._memory_areas", lambda pid: [area])
    asked = 0

    class Same(ObjectReader):
        def thread_states(self, runtime: int) -> object:  # type: ignore[override]
            return iter(range(THREAD, THREAD + count * 4096, 4096))

        def leaf_frame(self, thread_state: int) -> int:
            nonlocal asked
            asked += 1
            return FRAME

    memory = Forged({})
    memory.word = lambda address: area[0] + 64  # type: ignore[method-assign]
    runtime = SimpleNamespace(pid=1, address=RUNTIME, layout=layout, gil=0)

    found = _thread_states(runtime, Same(memory, layout, CODE_TYPE), {tid: area[0] + tid for tid in range(1, count)})  # type: ignore[arg-type]

    assert len(found) == count - 1
    assert asked == count


# -- objects -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [4097, 1 << 31, 1 << 62, (1 << 64) - 1])
def test_texts_and_tables_of_forged_length_are_refused(length: int) -> None:
    layout = VERSIONS[3, 12].layout
    ours, _ = reader(layout, {TEXT + layout.object_length: length, TEXT + layout.string_state: 1 << 2 | 1 << 6})

    with pytest.raises(UnreadableError):
        ours.string(TEXT)
    if length > 1 << 20:
        with pytest.raises(UnreadableError):
            ours.blob(TEXT)


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("count", [100_001, 1 << 40, (1 << 64) - 1])
@pytest.mark.parametrize("index_bits", [0, 64, 255])
def test_dicts_of_forged_size_are_refused(version: str, count: int, index_bits: int) -> None:
    layout = ALL[version].layout
    ours, _ = reader(
        layout,
        {TEXT + layout.object_length + 16: CODE, CODE + 8: count | index_bits << 8, CODE + 24: count, CODE + 32: count},
    )

    with pytest.raises(UnreadableError):
        Dicts(ours, ALL[version].objects).by_name(TEXT)


@given(
    st.dictionaries(st.integers(0, 600).map(lambda number: TEXT + 8 * number), st.integers(0, 2**64 - 1), max_size=40)
)
def test_any_object_gives_a_result_or_an_error_of_ours(words: dict[int, int]) -> None:
    for version in ALL.values():
        ours, _ = reader(version.layout, words)
        for read in (ours.string, ours.blob, ours.code, ours.frames, Dicts(ours, version.objects).attributes):
            with suppress(UnreadableError):
                read(TEXT)


@pytest.mark.parametrize("address", [-1, 1 << 63, (1 << 64) - 1, 1 << 64, 1 << 9_000])
@pytest.mark.parametrize("kind", [Memory, SnapshotMemory])
def test_addresses_and_sizes_that_cannot_be_are_refused_by_the_memory(kind: type[Memory], address: int) -> None:
    for size in (0, 1, 8, MOST_BYTES + 1, 1 << 62, -8):
        if size or address not in range(1 << 64):
            with pytest.raises(UnreadableError):
                kind(os.getpid()).read(address, size)


def test_a_snapshot_takes_from_its_budget_what_it_reads() -> None:
    buffer = bytearray(100)
    address = ctypes.addressof((ctypes.c_char * 100).from_buffer(buffer))
    memory = SnapshotMemory(os.getpid(), Budget("this process", steps=3, size=3 * 4096))

    for _ in range(3):
        memory.word(address)
    with pytest.raises(ImplausibleTargetError):
        memory.word(address)
    with pytest.raises(ImplausibleTargetError):
        SnapshotMemory(os.getpid(), Budget("this process", size=4095)).word(address)


# -- proof ---------------------------------------------------------------------------------------------------------


def living(layout: Layout) -> dict[int, int]:
    ident = TEXT + 4096
    return one_thread(layout) | {
        CODE_TYPE + layout.object_type + 16: TEXT,
        TEXT: int.from_bytes(b"code\0", "little"),
        THREAD + layout.thread_interp: INTERP,
        THREAD + layout.thread_id: ident,
        ident: ident,
    }


@ANY_LAYOUT
def test_an_interpreter_with_a_thread_of_the_process_is_proved(layout: Layout) -> None:
    prove_living(reader(layout, living(layout))[0], RUNTIME, CODE_TYPE)


@ANY_LAYOUT
@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda layout: {RUNTIME + layout.interpreters_head: 0}, "no interpreter has been made in it"),
        (lambda layout: {INTERP + layout.interp_threads: 0}, "no thread of it was found"),
        (lambda layout: {THREAD + layout.thread_id: TEXT + 8}, "name no thread"),
        (lambda layout: {THREAD + layout.thread_id: 1 << 63}, "name no thread"),
        (lambda layout: {THREAD + layout.thread_interp: TEXT}, "lead back"),
        (lambda layout: {TEXT: int.from_bytes(b"list\0", "little")}, "unknown form"),
    ],
)
def test_what_is_forged_proves_nothing(layout: Layout, forge: object, reason: str) -> None:
    words = living(layout) | forge(layout)  # type: ignore[operator]

    with pytest.raises(NotLivingError, match=reason):
        prove_living(reader(layout, words)[0], RUNTIME, CODE_TYPE)


# -- debug offsets -------------------------------------------------------------------------------------------------


PLACES = {
    "interpreters_head": "runtime.interpreters_head", "interp_next": "interp.next",
    "interp_threads": "interp.threads_head", "interp_modules": "interp.imports_modules",
    "interp_gil": "interp.ceval_gil", "gil_holder": "interp.gil_holder", "gil_locked": "interp.gil_locked",
    "thread_next": "thread.next", "thread_interp": "thread.interp",
    "thread_frame": "thread.current_frame", "thread_id": "thread.thread_id", "thread_status": "thread.status",
    "frame_bytes": "frame.localsplus", "frame_previous": "frame.previous", "frame_code": "frame.executable",
    "frame_instruction": "frame.instr_ptr", "frame_owner": "frame.owner", "code_file": "code.filename",
    "code_name": "code.qualname", "code_table": "code.linetable", "code_first_line": "code.firstlineno",
    "code_instructions": "code.co_code_adaptive", "object_type": "object.ob_type", "object_length": "str.length",
    "string_state": "str.state", "string_ascii": "str.asciiobject_size",
    "string_wide": "str.compactunicodeobject_size", "bytes_data": "bytes.ob_sval",
}  # fmt: skip
"""Of a Layout -> where `_Py_DebugOffsets` says it; two of the GIL's only by what they are further than another."""


def offsets_of(number: tuple[int, int], known: Version) -> dict[str, int]:
    """What an interpreter of this version says, from our own table of it."""
    said = dict.fromkeys(MEMBERS[min(number, max(MEMBERS))], 0)
    said |= {place: getattr(known.layout, name) for name, place in PLACES.items() if place in said}
    said["code.argcount"] = known.layout.code_flags + 4
    said["gc.collecting"] = GC_COLLECTING[min(number, max(GC_COLLECTING))]
    said["interp.gc"] = max(known.layout.gc_collecting - said["gc.collecting"], 0)
    said["version"] = number[0] << 24 | number[1] << 16
    said["free_threaded"] = int(known.layout.object_type > 8)
    if "heaptype.ht_cached_keys" in said:
        said["heaptype.ht_cached_keys"] = known.objects.cached_keys
    said["cookie"] = int.from_bytes(COOKIE, "little")
    return said


def packed(said: Mapping[str, int]) -> bytes:
    return struct.pack(f"<{len(said)}Q", *said.values()).ljust(TABLE_BYTES, b"\0")


@ANY_THAT_DESCRIBES_ITSELF
def test_what_an_interpreter_says_of_itself_is_taken(number: tuple[int, int], known: Version) -> None:
    assert described(number, packed(offsets_of(number, known))) == known


@ANY_THAT_DESCRIBES_ITSELF
def test_what_it_says_counts_for_more_than_what_we_know(number: tuple[int, int], known: Version) -> None:
    """A release may have other values: all but a few members, which no table has, come from it."""
    said = offsets_of(number, known)
    moved = {name: place for name, place in PLACES.items() if place in said and name != "frame_bytes"}
    shifted = said | {place: said[place] + 8 for place in moved.values()} | {"frame.localsplus": 88}

    layout = described(number, packed(shifted)).layout

    assert {name: getattr(layout, name) - getattr(known.layout, name) for name in moved} == dict.fromkeys(moved, 8)
    assert (layout.frame_bytes, layout.code_bytes) == (88, known.layout.code_bytes + 8)
    assert layout.string_wide - layout.string_ascii == 16


def test_a_version_that_is_not_known_yet_is_read_like_the_newest() -> None:
    """But for what its collector counts, which the table does not tell."""
    newest = max(VERSIONS)
    number, known = (newest[0], newest[1] + 1), VERSIONS[newest]

    found = described(number, packed(offsets_of(number, known)))

    assert found == replace(known, layout=replace(known.layout, gc_older=0))


@pytest.mark.parametrize("number", [(3, 14), (3, 15), (3, 16)])
def test_a_free_threaded_build_that_is_not_known_is_refused(number: tuple[int, int]) -> None:
    said = offsets_of(number, VERSIONS[min(number, max(VERSIONS))]) | {"free_threaded": 1}

    with pytest.raises(UnknownVersionError, match=rf"free-threaded Python 3\.{number[1]} is not known, only that of 3"):
        described(number, packed(said))


@ANY_THAT_DESCRIBES_ITSELF
@pytest.mark.parametrize("forged", [1 << 63, (1 << 64) - 1, 1 << 31, 65_528, 3])
def test_offsets_beyond_their_structure_are_refused(number: tuple[int, int], known: Version, forged: int) -> None:
    said = offsets_of(number, known)
    # An owner is a byte, which may lie at 3; of the length of a frame, and of the GIL, only a difference counts.
    unlike = {"frame_owner", "gil_holder", "gil_locked"}
    taken = [place for name, place in PLACES.items() if place in said and name not in unlike]
    assert len(taken) > 20

    for name in taken:
        with pytest.raises(ImplausibleLayoutError):
            described(number, packed(said | {name: forged}))


@ANY_THAT_DESCRIBES_ITSELF
@pytest.mark.parametrize("raw", [b"", b"xdebugpy", b"\0" * TABLE_BYTES])
def test_an_interpreter_that_says_nothing_of_itself_is_refused(
    number: tuple[int, int], known: Version, raw: bytes
) -> None:
    with pytest.raises(ImplausibleLayoutError):
        described(number, raw)


@given(data=st.data(), which=st.sampled_from(sorted(SELF_DESCRIBING)))
def test_any_offsets_give_a_layout_that_the_kernel_takes_or_are_refused(data: st.DataObject, which: str) -> None:
    number, known = SELF_DESCRIBING[which]
    said = offsets_of(number, known)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.sampled_from(list(said)[1:]))
        said[place] = data.draw(st.integers(0, 2**64 - 1) | st.integers(0, 70_000))

    with suppress(ImplausibleLayoutError, UnknownVersionError):
        found = described(number, packed(said)).layout
        assert all(0 <= getattr(found, one.name) < 1 << 16 for one in fields(Layout))
        assert found.frame_code + 8 <= found.frame_bytes <= 127
        assert found.code_table + 8 <= found.code_bytes <= 255
