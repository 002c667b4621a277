"""Whatever stands in a profile, a trace or an error: nothing that leaves pprofpy steers a terminal or breaks a line."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pprofpy import errors
from pprofpy.cli import main
from pprofpy.cli.console import remark
from pprofpy.events.words import TracedEvent
from pprofpy.formats import pprof
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import (
    Collection,
    Frame,
    Function,
    Label,
    Mapping,
    Profile,
    ValueType,
)  # fmt: skip
from pprofpy.reports import trace_lines
from tests.looks import on_terminal, piped

WORST = "a\x1b]0;owned\x07\x9b2J\r\x08\u202e\u200b\u2028\x85\x0b\x7f\tb<&\"'>\\[bold]"
HOSTILE = st.text(
    st.one_of(st.characters(codec="utf-8"), st.sampled_from("\x1b\x9b\n\r\t\x07\x85\u202e\u2066\u200b\u2028\ufeff%")),
    max_size=12,
)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
COMMANDS = [
    ["top"], ["top", "--lines"], ["top", "--files"], ["list", "."], ["peek", "."], ["tree"], ["traces"], ["show"],
    ["export", "-f", "collapsed"],
]  # fmt: skip
patiently = settings(max_examples=12, suppress_health_check=list(HealthCheck))


def harmful(text: str) -> list[str]:
    """What could steer a terminal, but for line breaks and our own colours."""
    left = COLOUR.sub("", text).replace("\n", "")
    return [char for char in left if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def profile_with(text: str) -> Profile:
    """A profile with `text` in every field that can hold one."""
    types = ValueType(text or "samples", "count"), ValueType("cpu", "nanoseconds")
    builder = ProfileBuilder(types, Mapping(f"/srv/{text}", 0x1000, 0x2000, 0, text, has_functions=True))
    functions = [Function(name, text, f"/srv/{text}.py", 3) for name in (f"f{text}", f"g{text}")]
    frames = tuple(Frame(function, line) for line, function in enumerate(functions, 5))
    builder.add(frames, (3, 30), (Label(f"k{text}", text), Label("thread", text), Label("tid", 7, text)))
    return replace(
        builder.build(),
        comments=(text,),
        doc_url=text,
        time_ns=1,
        duration_ns=100,
        drop_frames="",
        collection=Collection(engine=text, target=text, asked=4, notes=(f"x{text}",)),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "x.pb.gz"


@contextmanager
def captured(*, terminal: bool) -> Iterator[Callable[[], str]]:
    """What is written to standard output and standard error: a pseudo terminal, or a pipe."""
    read, write = os.openpty() if terminal else os.pipe()
    if not terminal:
        os.set_blocking(read, False)
    streams = sys.stdout, sys.stderr
    with os.fdopen(write, "w", encoding="utf-8", errors="backslashreplace") as stream:
        sys.stdout = sys.stderr = stream

        def taken() -> str:
            stream.flush()
            os.set_blocking(read, False)
            content = b""
            try:
                while part := os.read(read, 1 << 16):
                    content += part
            except (BlockingIOError, OSError):
                pass
            return content.decode().replace("\r\n", "\n")  # the terminal's own line ends

        try:
            yield taken
        finally:
            sys.stdout, sys.stderr = streams
    os.close(read)


@pytest.mark.parametrize("terminal", [False, True], ids=["piped", "terminal"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@example(text=WORST)
@given(text=HOSTILE)
@patiently
def test_no_view_lets_anything_through(command: list[str], terminal: bool, path: Path, text: str) -> None:
    if terminal is False and command[0] == "export":
        pytest.skip("what is exported is data for programs")
    path.write_bytes(pprof.write(profile_with(text)))
    with captured(terminal=terminal) as taken:
        status = main.run([*command, str(path)])
        shown = taken()

    assert status == 0, shown
    assert "f" in shown
    assert harmful(shown) == []


@pytest.mark.parametrize(
    "command", [["top", "--json"], ["list", "--json", "."], ["traces", "--json"], ["show", "--json"]]
)
@example(text=WORST)
@given(text=HOSTILE)
@patiently
def test_json_is_valid_and_harmless(command: list[str], path: Path, text: str) -> None:
    path.write_bytes(pprof.write(profile_with(text)))
    with captured(terminal=False) as taken:
        assert main.run([*command, str(path)]) == 0
        shown = taken()

    assert harmful(shown) == []
    assert shown.isascii()
    json.loads(shown, parse_constant=lambda name: pytest.fail(name))


@example(text=WORST)
@given(text=HOSTILE)
@patiently
def test_a_picture_is_valid_and_harmless(path: Path, text: str) -> None:
    path.write_bytes(pprof.write(profile_with(text)))
    with captured(terminal=False) as taken:
        assert main.run(["flamegraph", "-o", "-", "--title", text, str(path)]) == 0
        shown = taken()

    assert harmful(shown) == []
    ElementTree.fromstring(shown)


def all_errors() -> list[type[errors.PprofpyError]]:
    def below(kind: type[errors.PprofpyError]) -> list[type[errors.PprofpyError]]:
        return [kind, *(found for sub in kind.__subclasses__() for found in below(sub))]

    return below(errors.PprofpyError)


@pytest.mark.parametrize("kind", all_errors())
@example(text=WORST)
@given(text=HOSTILE)
@patiently
def test_no_error_lets_anything_through(kind: type[errors.PprofpyError], text: str) -> None:
    with captured(terminal=False) as taken:
        main._report(kind(text, text))
        main._report(main._unforeseen(ValueError(text)))
        remark(text)
        shown = taken()

    assert shown
    assert harmful(shown) == []


@pytest.mark.parametrize(
    "words",
    [["top", "TEXT"], ["top", "--focus", "TEXT", "PATH"], ["top", "--sample-index", "TEXT", "PATH"], ["TEXT"],
     ["top", "--TEXT"], ["list", "TEXT", "PATH"], ["flamegraph", "--by", "TEXT", "PATH"],
     ["export", "-o", "TEXT", "PATH"], ["top", "--unit", "TEXT", "PATH"], ["timeline", "TEXT"],
     ["trace", "--input", "TEXT"], ["show", "TEXT"],
     ["cpu", "--name", "TEXT"], ["cpu", "-o", "/TEXT/TEXT"], ["cpu", "--", "/TEXT"]],
    ids=" ".join,
)  # fmt: skip
def test_no_word_of_the_command_line_comes_back_harmful(
    words: list[str], path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / WORST.replace("/", "")))
    path.write_bytes(pprof.write(profile_with(WORST)))
    with captured(terminal=False) as taken:
        status = main.run([word.replace("TEXT", WORST).replace("PATH", str(path)) for word in words])
        shown = taken()

    assert status in range(6), shown
    assert harmful(shown) == []


def test_the_profile_folders_name_is_printed_harmlessly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / WORST.replace("/", "")))
    with captured(terminal=False) as taken:
        assert main.run(["top"]) == 5
        shown = taken()

    assert r"\x1b]0;owned" in shown
    assert harmful(shown) == []


@example(text=WORST)
@given(text=HOSTILE)
@patiently
def test_events_as_lines(text: str) -> None:
    stack = Frame(Function(text, text, text), 3), Frame(Function(text))
    line = TracedEvent(1_000, 2_000, 0, 1, 2, text, text, text, stack)
    for printed in (piped, on_terminal):
        shown = printed(lambda console: trace_lines.LinePrinter(console).print([line]))
        assert harmful(shown) == []
        assert shown.count("\n") == 4
