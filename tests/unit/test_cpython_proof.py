"""A layout that is none of ours is used where a walk from outside proves it, and refused in words where not."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace

import pytest

from pprofpy.collectors.cpython.debugoffsets import MEMBERS
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.proof import prove_walk
from pprofpy.collectors.cpython.runtime import find_runtime, living_runtime
from pprofpy.collectors.cpython.versions import FREE_THREADED, VERSIONS, Layout, spelled
from pprofpy.errors import NotPossibleError
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, Start, interpreter, wait_until
from tests.unit.test_cpython_forged import Forged

NEWEST = max(VERSIONS)
NEXT = NEWEST[0], NEWEST[1] + 1
LAYOUTS = {spelled(number): VERSIONS[number].layout for number in MEMBERS} | {
    f"{spelled(number)}t": one.layout for number, one in FREE_THREADED.items()
}
ANY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)

RUNTIME, INTERP, THREAD, LEAF, ROOT, SHIM, MODULE, WORK, CODE_TYPE, NAMES = (number << 20 for number in range(1, 11))
UNITS = 5


# -- a stack in memory of our own making ---------------------------------------------------------------------------


def stack(layout: Layout) -> dict[int, int]:
    """The words of a thread that runs `work`, called by a module, by a layout."""
    words = {
        RUNTIME + layout.interpreters_head: INTERP,
        INTERP + layout.interp_threads: THREAD,
        THREAD + layout.thread_frame: LEAF,
        THREAD + layout.thread_status: 0b011011,
    }
    words |= frame(layout, LEAF, WORK, ROOT) | frame(layout, ROOT, MODULE, SHIM)
    words |= {SHIM + layout.frame_code: NAMES, SHIM + layout.frame_owner: 3}
    return words | code(layout, WORK, "work", 7) | code(layout, MODULE, "<module>", 1)


def frame(layout: Layout, address: int, of: int, previous: int) -> dict[int, int]:
    return {
        address + layout.frame_previous: previous,
        address + layout.frame_code: of,
        address + layout.frame_instruction: of + layout.code_instructions + 4,
    }


def code(layout: Layout, address: int, name: str, first_line: int) -> dict[int, int]:
    at, file_at, table = (NAMES + (address >> 4) + 1024 * number for number in range(1, 4))
    return {
        address + layout.object_type: CODE_TYPE,
        address + layout.object_length: UNITS,
        address + layout.code_first_line: first_line,
        address + layout.code_name: at,
        address + layout.code_file: file_at,
        address + layout.code_table: table,
        **text(layout, at, name),
        **text(layout, file_at, "/srv/app.py"),
        table + layout.object_length: 3,
        table + layout.bytes_data: int.from_bytes(b"\x82\x00\x89", "little"),  # 3 units and 2
    }


def text(layout: Layout, address: int, characters: str) -> dict[int, int]:
    raw = characters.encode().ljust(16, b"\0")
    low, high = struct.unpack("<QQ", raw)
    state = (1 | 1 << 3 | 1 << 4) << layout.string_kind_shift  # of a byte each, compact, ASCII
    start = address + layout.string_ascii
    return {
        address + layout.object_length: len(characters),
        address + layout.string_state: state,
        start: low,
        start + 8: high,
    }


def prove(layout: Layout, words: Mapping[int, int], known: Layout | None = None, *, is_new: bool = True) -> bool:
    return prove_walk(ObjectReader(Forged(words), layout, CODE_TYPE), RUNTIME, known or layout, is_new=is_new)


@ANY_LAYOUT
def test_a_stack_that_is_whole_proves_its_layout(layout: Layout) -> None:
    assert prove(layout, stack(layout))


@ANY_LAYOUT
def test_without_a_stack_there_is_no_proof(layout: Layout) -> None:
    assert not prove(layout, stack(layout) | {THREAD + layout.thread_frame: 0})


@ANY_LAYOUT
def test_what_runs_no_module_proves_a_version_that_is_known(layout: Layout) -> None:
    """As programs do that call Python from C."""
    embedded = stack(layout) | text(layout, NAMES + (MODULE >> 4) + 1024, "handler")

    assert prove(layout, embedded, is_new=False)
    with pytest.raises(UnreadableError, match="has no module in it"):
        prove(layout, embedded, is_new=True)


@ANY_LAYOUT
def test_so_it_does_where_members_have_moved(layout: Layout) -> None:
    moved = replace(
        layout,
        thread_frame=layout.thread_frame + 8,
        code_file=layout.code_name,
        code_name=layout.code_file,
        code_instructions=layout.code_instructions + 16,
        interp_threads=layout.interp_threads + 64,
    )

    assert prove(moved, stack(moved), layout)
    for given, words in ((layout, stack(moved)), (moved, stack(layout))):
        with suppress(UnreadableError):
            assert not prove(given, words, layout)


@ANY_LAYOUT
@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (lambda layout: {THREAD + layout.thread_status: 0b010011}, "not said to be in use"),
        (lambda layout: {THREAD + layout.thread_status: 0b011111}, "not said to be in use"),
        (lambda layout: {ROOT + layout.frame_previous: 0}, "begin with a call from C"),
        (lambda layout: {SHIM + layout.frame_owner: 0}, "begin with a call from C"),
        (lambda layout: {SHIM + layout.frame_code: MODULE}, "begin with a call from C"),
        (lambda layout: {SHIM + layout.frame_previous: LEAF}, "leads back"),
        (lambda layout: {LEAF + layout.frame_code: NAMES}, "no code object"),
        (lambda layout: {WORK + layout.object_type: NAMES}, "no code object"),
        (lambda layout: {LEAF + layout.frame_instruction: WORK + layout.code_instructions - 2}, "beyond its code"),
        (lambda layout: {LEAF + layout.frame_instruction: WORK + layout.code_instructions + 10}, "beyond its code"),
        (lambda layout: {LEAF + layout.frame_instruction: WORK + layout.code_instructions + 3}, "beyond its code"),
        (lambda layout: {WORK + layout.object_length: UNITS + 1}, "not as long as its code"),
        (lambda layout: {WORK + layout.code_table: NAMES}, "not as long as its code"),
        (lambda layout: {MODULE + layout.code_first_line: 0}, "first line"),
        (lambda layout: text(layout, NAMES + (WORK >> 4) + 1024, ""), "is no text"),
        (lambda layout: text(layout, NAMES + (WORK >> 4) + 2048, "\x01\x02"), "is no text"),
        (lambda layout: {NAMES + (WORK >> 4) + 1024 + layout.string_state: 0}, "no str"),
    ],
)
def test_one_that_is_not_whole_does_not(layout: Layout, forge: object, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        prove(layout, stack(layout) | forge(layout))  # type: ignore[operator]


@ANY_LAYOUT
def test_a_lock_of_another_form_is_not_taken_for_ours(layout: Layout) -> None:
    with pytest.raises(UnreadableError, match="lock has an unknown form"):
        prove(replace(layout, gil_locked=layout.gil_locked + 8), stack(layout), layout)


# -- interpreters that say something else of themselves ------------------------------------------------------------


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has only just begun is given a moment, in which these do not become others."""
    monkeypatch.setattr("pprofpy.collectors.cpython.runtime._PATIENCE_S", 0)


def word(version: str, name: str) -> int:
    return MEMBERS[3, int(version.partition(".")[2])].index(name)


@pytest.mark.parametrize("version", [version for version in LAYOUTS if not version.endswith("t")])
def test_a_version_that_is_not_known_is_read_where_it_is_like_the_newest_and_refused_where_not(
    version: str, start: Start
) -> None:
    process = start(interpreter(version), str(PROGRAMS / "newer.py"), str(NEXT[1]))
    target = open_target(process.pid)

    if version != spelled(NEWEST):
        with pytest.raises(NotPossibleError, match=rf"Python {spelled(NEXT)} is not known|be CPython's|cannot be"):
            find_runtime(target)
        return
    found = find_runtime(target)

    assert found.version == NEXT
    assert found.is_new
    assert asdict(found.layout) == asdict(LAYOUTS[version]) | {"gc_older": 0}  # nor what its collector counts
    reader = found.reader()
    (thread,) = reader.thread_states(found.address)

    def names() -> list[str]:
        try:
            return [reader.code(address).name for address in reader.frames(thread)]
        except UnreadableError:  # it runs meanwhile
            return []

    wait_until(lambda: "burn_round" in names(), "its function is read")
    with pytest.raises(NotPossibleError, match=f"the layout of Python {spelled(NEXT)} is not known"):
        living_runtime(target)  # what calls functions in it needs more


SWAPPED = [
    ("frame.previous", "frame.executable"),
    ("frame.instr_ptr", "frame.previous"),
    ("code.filename", "code.qualname"),
    ("code.linetable", "code.filename"),
    ("code.firstlineno", "code.argcount"),
    ("thread.current_frame", "thread.interp"),
    ("str.length", "str.state"),
    ("frame.owner", "frame.previous"),
]
LIES = [
    *((spelled(NEWEST), NEXT, *pair) for pair in SWAPPED),
    *(
        (version, None, *pair)
        for version in (spelled(NEWEST), "3.13t")
        for pair in SWAPPED
        if pair[0] != "code.filename"
    ),
]
"""Which Python, the version that it says it is, and two members that have changed places. In a version that is known,
it is up to a program whether its functions are called like files."""


@pytest.mark.parametrize(("version", "number", "here", "there"), LIES)
def test_a_table_that_is_not_true_is_refused_in_words(
    version: str, number: tuple[int, int] | None, here: str, there: str, start: Start
) -> None:
    index = word(version.removesuffix("t"), here), word(version.removesuffix("t"), there)
    swapped = [f"{index[0]}=@{index[1]}", f"{index[1]}=@{index[0]}"]
    words = [*swapped, *([str(number[1])] if number else [])]
    target = open_target(start(interpreter(version), str(PROGRAMS / "newer.py"), *words).pid)

    with pytest.raises(NotPossibleError, match="cannot be read: ") as refused:
        find_runtime(target)

    claimed = spelled(number) if number else version.removesuffix("t")
    assert f"Python {claimed}" in refused.value.message or "does not look like CPython's" in refused.value.message


@pytest.mark.parametrize("version", ["3.14", "3.15"])
def test_free_threaded_builds_that_are_not_known_are_refused_in_words(version: str, start: Start) -> None:
    free = word(version, "free_threaded")
    target = open_target(start(interpreter(version), str(PROGRAMS / "newer.py"), f"{free}=1").pid)

    for find in (find_runtime, living_runtime):
        with pytest.raises(NotPossibleError, match=rf"free-threaded Python {version} is not known, only that of 3\.13"):
            find(target)


def test_a_build_with_a_lock_that_says_that_it_has_none_is_refused(start: Start) -> None:
    free = word("3.13", "free_threaded")
    target = open_target(start(interpreter("3.13"), str(PROGRAMS / "newer.py"), f"{free}=1").pid)

    with pytest.raises(NotPossibleError, match="its lock has an unknown form"):
        find_runtime(target)
