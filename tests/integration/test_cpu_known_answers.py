"""A program that knows its own shares is reported with them, on every interpreter."""

from __future__ import annotations

import pytest

from pprofpy.formats.files import read_profile
from pprofpy.model.combine import merge
from pprofpy.model.graph import build_graph
from pprofpy.model.profile import Profile
from tests.conftest import PROGRAMS, CommandLine, Start, interpreter

pytestmark = pytest.mark.xdist_group("known_answers")
"""One after the other: each of these programs takes a whole CPU."""

SHARES = {"burn.half": 50, "burn.third": 30, "burn.seventh": 15, "burn.rest": 5}
TOLERANCE = 3
RATE_HZ, SECONDS = 400, 2

ATTEMPTS = 16
"""Samples in bursts, as py-spy takes them on a busy machine, are worth less than their number says. All recordings of a
test are summed up: chance evens out over them, a profiler that is wrong stays wrong."""


def shares_of(profile: Profile) -> dict[str, float]:
    graph = build_graph(profile, profile.value_index("cpu"))
    flat = {entity.name: int(value) for entity, value in zip(graph.entities, graph.flat, strict=True)}
    return {name: round(100 * flat.get(name, 0) / graph.total, 1) for name in SHARES}


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "system"])
def test_each_function_gets_its_share(version: str, cli: CommandLine, start: Start) -> None:
    burning = start(interpreter(version), str(PROGRAMS / "burn.py"))
    expected = {name: pytest.approx(share, abs=TOLERANCE) for name, share in SHARES.items()}

    recordings: list[Profile] = []
    measured: dict[str, float] = {}
    while measured != expected and len(recordings) < ATTEMPTS:
        done = cli("cpu", "-p", str(burning.pid), "-d", str(SECONDS), "-r", str(RATE_HZ), "--engine", "py-spy")
        assert done.returncode == 0, done.stderr
        recordings.append(read_profile(str(cli.recordings[-1])))
        measured = shares_of(merge(recordings))

    assert measured == expected
