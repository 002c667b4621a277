"""Files like those that people brought to other profilers: read right, or refused by their right name."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pprofpy.cli.main import run
from pprofpy.errors import ProfileFormatError
from pprofpy.formats import decode
from pprofpy.formats.files import read_profile
from pprofpy.model.profile import ValueType
from tests.stacks import as_text

FILES = Path(__file__).parents[1] / "cases" / "files"


def sums(name: str) -> dict[str, int]:
    """What the samples of a file add up to, by sample type."""
    profile = read_profile(str(FILES / name))
    return {kind.type: profile.total(index) for index, kind in enumerate(profile.sample_types)}


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("austin.collapsed", {"samples": 1000}),
        ("two_columns.folded", {"base": 30, "new": 29}),
        ("names_with_semicolons.folded", {"samples": 10}),
        ("evented.speedscope.json", {"time": 1_000_000_000}),
        ("mixed_kinds.speedscope.json", {"time": 1_300_000_000}),
        ("two_types.pb.gz", {"samples": 3, "cpu": 7}),
        ("two_types_other_order.pb.gz", {"cpu": 3, "samples": 7}),
    ],
)
def test_a_file_is_read_to_its_last_sample(name: str, right: dict[str, int]) -> None:
    assert sums(name) == right


def test_less_is_a_negative_value_not_nothing() -> None:
    assert as_text(read_profile(str(FILES / "negative.folded"))) == {"main > alloc": 300, "main > free": -150}


def test_time_between_events_belongs_to_the_frames_that_are_open() -> None:
    profile = read_profile(str(FILES / "evented.speedscope.json"))

    assert {tuple(f.function.name for f in s.stack): s.values[0] for s in profile.samples()} == {
        ("main",): 200_000_000,
        ("load", "main"): 800_000_000,
    }


def test_values_that_wrap_around_come_with_a_warning() -> None:
    profile = read_profile(str(FILES / "overflow.pb.gz"))

    assert profile.collection.notes == ("Its values add up to more than 2^63: sums of them are wrong.",)
    for command in (["top"], ["tree"], ["flamegraph", "-o", "-"], ["export", "-f", "collapsed", "-o", "-"]):
        assert run([*command, str(FILES / "overflow.pb.gz")]) == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [("go_heap_debug1.txt", "a heap profile in the old text format"), ("trailing_garbage.pb.gz", "damaged")],
)
def test_a_file_that_cannot_be_read_is_called_by_its_name(name: str, reason: str) -> None:
    with pytest.raises(ProfileFormatError, match=reason):
        read_profile(str(FILES / name))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"goroutine profile: total 3\n1 @ 0x1 0x2\n", "list of goroutines"),
        (b"--- contentionz 1 ---\ncycles/second = 1\n", "contention"),
        (b"--- mutex:\ncycles/second=1\n", "mutex"),
        (struct.pack("<5Q", 0, 3, 0, 10_000, 0) + bytes(24), "CPU profile in the old binary format"),
        (struct.pack(">5I", 0, 3, 0, 10_000, 0) + bytes(24), "CPU profile in the old binary format"),
        (b"PERFILE2" + bytes(100), "a recording of perf"),
        (b"MOJO\3" + bytes(9), "austin"),
        (b"<svg xmlns='x'><text>a 5</text></svg>", "a picture|markup"),
        (b'{"traceEvents": []}', "Chrome or Perfetto"),
        (b'{"nodes": [], "startTime": 0}', "cpuprofile"),
        (b"a;b 1.5\na;c 2\n", "fractions"),
    ],
)
def test_formats_that_are_not_read_are_known_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(ProfileFormatError, match=reason):
        decode(data)


LOGS = {
    "access log": '127.0.0.1 - - [10/Oct/2026] "GET /a HTTP/1.0" 200 2326\n',
    "application log": "2026-01-01 12:00:01 INFO worker took 35\n",
    "bracketed log": "[2026-01-01 12:00:01] INFO worker took 35\n",
    "syslog": "<34>Oct 11 22:14:15 host su: failed for 7\n",
    "settings": "retries: 5\ntimeout: 30\n",
    "table": "name of it   calls\nfirst one   12\nsecond one   13\n",
}


@pytest.mark.parametrize("text", LOGS.values(), ids=LOGS)
def test_text_whose_lines_end_in_numbers_is_no_profile(text: str) -> None:
    with pytest.raises(ProfileFormatError, match="no profile in any format"):
        decode(text.encode() * 3)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_may_come_from_windows(encoding: str) -> None:
    assert as_text(decode("main;größe 3\r\nmain 1\r\n".encode(encoding))) == {"main > größe": 3, "main": 1}


def test_profiles_of_different_kinds_in_one_file_are_sample_types() -> None:
    frames = b'{"shared": {"frames": [{"name": "f"}]}, "profiles": ['
    timed = b'{"type": "sampled", "unit": "seconds", "samples": [[0]], "weights": [2]},'
    sized = b'{"type": "sampled", "unit": "bytes", "samples": [[0]], "weights": [512]}]}'
    profile = decode(frames + timed + sized)

    assert profile.sample_types == (ValueType("time", "nanoseconds"), ValueType("space", "bytes"))
    assert [profile.total(index) for index in range(2)] == [2_000_000_000, 512]


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ('{"type": "C", "frame": 0, "at": 1}', "fits no frame that is open"),
        ('{"type": "O", "frame": 0, "at": 2}, {"type": "C", "frame": 0, "at": 1}', "not in the order"),
        ('{"type": "O", "frame": 1, "at": 2}', "does not hold"),
        ('{"type": "O", "frame": 0}', "not a weight"),
        ("3", "object is due"),
    ],
)
def test_events_that_do_not_fit_are_refused(events: str, reason: str) -> None:
    text = f'{{"shared": {{"frames": [{{"name": "f"}}]}}, "profiles": [{{"type": "evented", "events": [{events}]}}]}}'
    with pytest.raises(ProfileFormatError, match=reason):
        decode(text.encode())


def test_deep_events_cost_what_their_file_weighs() -> None:
    """A stack that grows with each event would be half a billion frames, written out."""
    opened = ",".join(f'{{"type":"O","frame":0,"at":{at}}}' for at in range(30_000))
    text = f'{{"shared": {{"frames": [{{"name": "f"}}]}}, "profiles": [{{"type": "evented", "events": [{opened}]}}]}}'
    with pytest.raises(ProfileFormatError, match="frames would be 449985000"):
        decode(text.encode())


@pytest.mark.parametrize("name", ["x.html", "x.PNG", "x.svgz"])
def test_a_flame_graph_is_not_written_under_a_name_that_browsers_misread(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["flamegraph", str(FILES / "two_types.pb.gz"), "-o", str(tmp_path / name)]) == 2

    assert not (tmp_path / name).exists()
    assert "give a name that ends in .svg" in capsys.readouterr().err
