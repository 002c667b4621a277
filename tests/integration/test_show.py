"""`pprofpy show` prints what the command had printed that made the recording."""

from __future__ import annotations

import json

import pytest

from tests import go_pprof
from tests.conftest import PROGRAMS, CommandLine, Start, beside_others, interpreter

pytestmark = beside_others

LENGTH = "600ms"

RECORDINGS = [
    ["cpu", "--engine", "py-spy"],
    ["cpu", "--idle"],
    ["cpu", "--threads", "--nodecount", "3"],
    ["off-cpu", "--nodecount", "2"],
    ["off-cpu", "--wakers", "-K"],
    ["gil"],
    ["gil", "--interval", "200ms"],
    ["sched-latency"],
    ["sched-latency", "--stacks", "--interval", "300ms", "--threshold", "1us"],
    ["events", "-e", "context-switches"],
    ["heap", "--sample-bytes", "4k"],
    ["heap", "--snapshots", "3", "--types", "--sample-index", "alloc_space", "--functions"],
]


DETAILED = {words[0]: words for words in RECORDINGS}
"""Of each command the last one, which asks for the most."""


@pytest.fixture
def program(start: Start) -> str:
    return str(start(interpreter("3.11"), str(PROGRAMS / "show.py")).pid)


@pytest.mark.parametrize("words", RECORDINGS, ids=" ".join)
def test_a_recording_is_shown_as_it_was_printed(words: list[str], program: str, cli: CommandLine) -> None:
    printed = cli(*words, "--pid", program, "-d", LENGTH)

    shown = cli("show")

    assert printed.returncode == 0, printed.stderr
    assert printed.stdout
    assert (shown.returncode, shown.stdout) == (0, printed.stdout)
    stays_a_profile_for_go(cli)


def stays_a_profile_for_go(cli: CommandLine) -> None:
    done = go_pprof.pprof(cli.folder, "-raw", str(cli.recordings[-1]))

    assert "Samples:" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("words", DETAILED.values(), ids=" ".join)
def test_the_data_are_those_that_the_command_printed(words: list[str], program: str, cli: CommandLine) -> None:
    printed = json.loads(cli(*words, "--pid", program, "-d", LENGTH, "--json").stdout)

    shown = json.loads(cli("show", "--json").stdout)

    assert shown == printed
    assert (shown["schema"], shown["version"]) == (f"pprofpy.{words[0]}", 1)
