"""The parts of a heap recording that need no process: naming functions by their source, growth, sizes, memory lines."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pprofpy.collectors.heapagent import traced_blocks
from pprofpy.collectors.heapagent.frames import Frames, is_ours
from pprofpy.collectors.heapagent.memory_use import measure
from pprofpy.collectors.heapagent.samples import INUSE_OBJECTS, INUSE_SPACE
from pprofpy.collectors.heapagent.traced_blocks import TracedBlocks, to_profile
from pprofpy.errors import UsageError
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.heap import MemoryUse, ObjectType, Snapshots
from pprofpy.model.profile import Frame, Function, Profile
from pprofpy.reports import growth
from pprofpy.reports.heap import memory_lines, render_types
from pprofpy.units import parse_bytes
from tests.looks import on_terminal, piped

SOURCE = """\
import os


def outer():
    def inner():
        return 1
    return inner


class Shop:
    limit = 3

    async def serve(self):
        return [x for x in range(3)]


def last(): return 1
after = 2
"""
AROUND = {
    1: "<module>",
    4: "outer",
    5: "outer.<locals>.inner",
    6: "outer.<locals>.inner",
    7: "outer",
    8: "<module>",
    10: "Shop",
    13: "Shop.serve",
    14: "Shop.serve",
    17: "last",
    18: "<module>",
}


def heap_of(**bytes_by_function: int) -> Profile:
    builder = ProfileBuilder((INUSE_OBJECTS, INUSE_SPACE))
    for name, size in bytes_by_function.items():
        builder.add([Frame(Function(name, name, "shop.py"), 7), Frame(Function("main"), 1)], (1, size))
    return builder.build()


@pytest.mark.parametrize(("line", "name"), AROUND.items())
def test_the_function_around_a_line_is_found_in_the_source(tmp_path: Path, line: int, name: str) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "shop.py").write_text(SOURCE)

    frame = Frames(tmp_path).frame("/srv/shop.py", line)

    assert frame == Frame(Function(f"shop.{name}", name, "/srv/shop.py", frame.function.start_line), line)


@pytest.mark.parametrize("filename", ["/gone.py", "<frozen importlib._bootstrap>", "../../etc/passwd", "", "a\0b"])
def test_without_a_source_lines_belong_to_the_module(tmp_path: Path, filename: str) -> None:
    assert Frames(tmp_path).frame(filename, 3).function.system_name == "<module>"


HERE, OURS = (("/srv/a.py", 1),), (("<pprofpy>", 2), ("/srv/a.py", 1))
TRACES = [[HERE, HERE], [10, 5], [1, 3], [OURS, HERE], [7, 1], [2, 1]]
TRACES_OF_3_8 = [[HERE, HERE], [10, 5], [], [OURS, HERE], [7, 1], []]
SUMS = [[(HERE, 2, 15, 1)], [(OURS, 1, 7, 0), (HERE, 1, 1, 0)]]


@pytest.mark.parametrize(
    ("pieces", "are_sums", "truncated"), [(TRACES, False, 1), (SUMS, True, 1), (TRACES_OF_3_8, False, -1)]
)
def test_traces_are_summed_by_stack_without_our_own(pieces: list[Any], are_sums: bool, truncated: int) -> None:
    traces = TracedBlocks.of(iter([(100, are_sums), *pieces]))
    profile = to_profile(traces, Frames(Path("/nowhere")))

    assert (traces.count, traces.tracer_bytes, traces.truncated) == (4, 100, truncated)
    assert profile.values.tolist() == [[3, 16]]
    assert is_ours("<pprofpy>")
    assert not is_ours("/srv/pprofpy.py")


def test_blocks_whose_stack_finds_no_room_count_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced_blocks, "_MOST_STACKS", 1)
    there = (("/srv/b.py", 1),)

    traces = TracedBlocks.of(iter([(100, True), [(HERE, 2, 15, 0), (there, 3, 7, 0)], [(HERE, 1, 1, 0)]]))

    assert (traces.count, traces.lost_stacks) == (6, 3)
    assert to_profile(traces, Frames(Path("/nowhere"))).values.tolist() == [[3, 16], [3, 7]]


def snapshots_of(*profiles: Profile) -> Snapshots:
    snapshots = Snapshots()
    for number, profile in enumerate(profiles):
        snapshots.add(number * 10**9, profile)
    return snapshots


def test_steady_growth_comes_before_a_larger_jump() -> None:
    sizes = [{"leak": 10, "cache": 0}, {"leak": 20, "cache": 0}, {"leak": 30, "cache": 25}, {"leak": 40, "cache": 25}]

    report = growth.build(snapshots_of(*(heap_of(**one) for one in sizes)))

    assert [(row.stack[0].function.name, row.growth_bytes, row.rises) for row in report.rows] == [
        ("leak", 30, 3),
        ("cache", 25, 1),
    ]
    assert report.totals_bytes == (10, 20, 55, 65)


def test_what_shrinks_is_not_listed_and_what_is_hidden_is_counted() -> None:
    first, last = heap_of(a=10, b=10, c=10), heap_of(a=5, b=20, c=30)

    report = growth.build(snapshots_of(first, last), limit=1)

    assert [row.stack[0].function.name for row in report.rows] == ["c"]
    assert report.hidden == 1


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("64k", 65536), ("64 kB", 65536), ("1.5M", 1536 << 10), ("2GiB", 2 << 30)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1x", "1 2"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_bytes(text)


def test_what_is_not_known_of_the_memory_is_left_out() -> None:
    assert memory_lines(MemoryUse()) == []
    assert len(memory_lines(MemoryUse(rss=3, pss=2, uss=1))) == 1
    assert "not known" in memory_lines(MemoryUse(rss=3, pss=2, uss=1, malloc=1))[1]
    assert len(memory_lines(MemoryUse(rss=3 << 20, pss=3 << 20, uss=3 << 20, arenas=1, small_objects=1, malloc=1))) == 4


def test_types_fit_a_terminal_and_are_whole_in_a_pipe() -> None:
    referrers = (("werkzeug.datastructures.headers.EnvironHeaders", 9), ("werkzeug.wrappers.request.Request", 5))
    rows = (ObjectType("dict", 4382, 1 << 21, referrers), ObjectType("list", 10, 1 << 10, (("dict", 3), ("set", 1))))

    def render(console: Console) -> None:
        render_types(rows, 83582, console)

    assert max(len(line) for line in re.sub(r"\x1b\[[\d;]*m", "", on_terminal(render)).splitlines()) <= 80
    assert "EnvironHeaders, werkzeug.wrappers.request.Request" in piped(render)
    assert on_terminal(render).rstrip().endswith("dict, set")


def test_our_own_memory_is_as_the_kernel_says() -> None:
    printed = (
        "12 arenas * 1048576 bytes/arena     =           12,582,912\n# bytes in allocated blocks        =    9,000\n"
    )

    memory = measure(os.getpid(), (printed, 77))

    assert memory.rss >= memory.uss > 0
    assert (memory.arenas, memory.small_objects, memory.malloc) == (12_582_912, 9000, 77)
