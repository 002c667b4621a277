"""Small files that stand for enormous profiles: refused, or shown with memory and time in proportion to the file."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from pprofpy.errors import ProfileFormatError, UsageError
from pprofpy.formats import collapsed, limits, pprof
from pprofpy.formats.protowire import bytes_field, number_field, varint
from pprofpy.model import filters
from pprofpy.model.graph import build_call_tree, build_graph
from tests.stacks import profile_of

FACTOR = 20
FLOOR_BYTES = 30 << 20
"""What the smallest files may take."""

CHILD = """
import sys
from pathlib import Path
from pprofpy.cli.main import run

def largest_kb():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

harmless, bomb, output = sys.argv[1:]
run(["flamegraph", harmless, "-o", output])  # loads what any file needs
before = largest_kb()
status = run(["flamegraph", bomb, "-o", output])
print(largest_kb() - before, file=sys.stderr)
sys.exit(status)
"""

SAMPLE = bytes_field(1, varint(1)) + bytes_field(2, varint(1))
FUNCTION = number_field(1, 1) + number_field(2, 3)


def message(*, name: bytes = b"f", locations: bytes = b"", samples: bytes = bytes_field(2, SAMPLE)) -> bytes:
    """A profile of one sample type and one function."""
    strings = b"".join(bytes_field(6, text) for text in (b"", b"samples", b"count", name))
    return (
        bytes_field(1, number_field(1, 1) + number_field(2, 2))
        + samples
        + locations
        + bytes_field(5, FUNCTION)
        + strings
    )


def location(identity: int, *lines: int) -> bytes:
    return bytes_field(
        4, number_field(1, identity) + b"".join(bytes_field(4, number_field(1, 1) + number_field(2, n)) for n in lines)
    )


def one_stack(*identities: int) -> bytes:
    return bytes_field(2, bytes_field(1, b"".join(map(varint, identities))) + bytes_field(2, varint(1)))


def deep(name: bytes = b"work", count: int = 30_000) -> bytes:
    """A stack of so many frames on so many lines."""
    lines = b"".join(location(number, number) for number in range(1, count + 1))
    return message(name=name, locations=lines, samples=one_stack(*range(1, count + 1)))


BOMBS = {
    "30,000 frames on 30,000 lines": deep(),
    "30,000 frames on 30,000 lines of a long name": deep(b"f" * 180_000),
    "30,000 times 30,000 inlined lines": message(
        locations=location(1, *range(1, 30_001)), samples=one_stack(*[1] * 30_000)
    ),
    "a recursion of 500,000 frames": message(locations=location(1, 1), samples=one_stack(*[1] * 500_000)),
    "samples without anything": message(samples=b"\x12\x00" * 300_000),
    "texts without anything": message() + b"\x32\x00" * 300_000,
    "types without anything": message() + b"\x0a\x00" * 300_000,
    "locations without anything": message(locations=b"".join(map(location, range(1, 200_000)))),
    "a collapsed frame of 180 KB": b"x" + b" (/" * 60_000 + b" 1\n",
    "a collapsed file of ever new frames": b"".join(b"%x 1\n" % number for number in range(200_000)),
    "a speedscope frame of 180 KB": json.dumps(
        {
            "shared": {"frames": [{"name": "f" * 180_000}]},
            "profiles": [{"type": "sampled", "unit": "none", "samples": [[0] * 30_000], "weights": [1]}],
        }
    ).encode(),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_is_in_proportion_to_the_file(bomb: str, tmp_path: Path) -> None:
    (tmp_path / "harmless").write_bytes(b"main;work 1\n")
    (tmp_path / "bomb").write_bytes(BOMBS[bomb])
    arguments = [str(tmp_path / name) for name in ("harmless", "bomb", "picture.svg")]

    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, timeout=120, check=False
    )

    assert ended.returncode in (0, ProfileFormatError.exit_code), ended.stderr
    assert int(ended.stderr.split()[-1]) << 10 < max(FACTOR * len(BOMBS[bomb]), FLOOR_BYTES)


def test_an_expression_in_a_file_takes_linear_time() -> None:
    profile = profile_of({"a" * 100_000: 1})
    profile.drop_frames = "(a+)+b"

    assert len(filters.prune(profile)) == 1


@pytest.mark.parametrize("expression", ["(?=a)", "a" * 5000, "(((a{1,100}){1,100}){1,100}){1,100}", "("])
def test_an_expression_that_is_not_for_re2_is_refused_with_words(expression: str) -> None:
    profile = profile_of({"a": 1})
    profile.drop_frames = expression

    with pytest.raises(UsageError, match="not a regular expression of RE2's"):
        filters.prune(profile)


class TestGzip:
    """Unpacking is bounded; whatever is in between."""

    def test_members_are_read_one_after_the_other(self) -> None:
        assert limits.gunzip(gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two") + b"\0\0") == b"onetwo"

    @pytest.mark.parametrize(
        "data", [gzip.compress(b"x", mtime=0)[:-3], gzip.compress(b"x", mtime=0) + b"\x1f\x8b", b"\x1f\x8b"]
    )
    def test_one_cut_short_is_damaged(self, data: bytes) -> None:
        with pytest.raises((EOFError, zlib.error)):
            limits.gunzip(data)

    def test_much_from_little_is_refused_in_several_members_too(self) -> None:
        part = gzip.compress(b"\0" * (8 << 20))

        assert len(limits.gunzip(part)) == 8 << 20
        with pytest.raises(ProfileFormatError, match="unpacks to more"):
            limits.gunzip(part * 3)

    def test_the_limit_can_be_raised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(limits.UNPACKED_BYTES_VARIABLE, str(64 << 20))

        assert len(limits.gunzip(gzip.compress(b"\0" * (40 << 20)))) == 40 << 20


def test_a_million_frames_fold_into_a_tree_in_time() -> None:
    profile = pprof.read(message(locations=location(1, 1), samples=one_stack(*[1] * 300_000)))
    tree = build_call_tree(build_graph(profile, 0))

    assert len(tree) == 300_001
    assert tree.own[-1] == tree.total[1] == 1
    assert tree.children(300_000) == range(300_001, 300_001)


@pytest.mark.parametrize(
    ("frame", "name", "file", "line"),
    [
        (b"f (a.py:3)", "f", "a.py", 3),
        (b"f (x) (a.py:3)", "f (x)", "a.py", 3),
        (b"f (/srv/lib (1).py:7)", "f", "/srv/lib (1).py", 7),
        (b"f  (/srv/a.py:7)", "f  (/srv/a.py:7)", "", 0),
        (b"f (:7)", "f (:7)", "", 0),
        (b"f (a.py:)", "f (a.py:)", "", 0),
        (b"(a.py:1)", "(a.py:1)", "", 0),
    ],
)
def test_frames_of_py_spy(frame: bytes, name: str, file: str, line: int) -> None:
    (sample,) = collapsed.read(frame + b" 1\n").samples()
    (found,) = sample.stack

    assert (found.function.name, found.function.filename, found.line) == (name, file, line)
