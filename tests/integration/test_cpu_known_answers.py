"""A program that knows its own shares is reported with them, on every interpreter."""

from __future__ import annotations

import pytest

from pprofpy.formats.files import read_profile
from pprofpy.graph import build_graph
from tests.conftest import PROGRAMS, CommandLine, Start, interpreter

SHARES = {"burn.half": 50, "burn.third": 30, "burn.seventh": 15, "burn.rest": 5}
RATE_HZ, SECONDS = 500, 10
"""5000 looks: 3 points are more than four standard deviations of chance, for the largest share."""


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "system"])
def test_each_function_gets_its_share(version: str, cli: CommandLine, start: Start) -> None:
    burning = start(interpreter(version), str(PROGRAMS / "burn.py"))

    done = cli("cpu", "-p", str(burning.pid), "-d", str(SECONDS), "-r", str(RATE_HZ))

    assert done.returncode == 0, done.stderr
    profile = read_profile(str(cli.recordings[0]))
    graph = build_graph(profile, profile.value_index("cpu"))
    shares = {
        entity.name: 100 * flat / graph.total for entity, flat in zip(graph.entities, graph.flat.tolist(), strict=True)
    }
    measured = {name: round(shares[name], 1) for name in SHARES}
    assert measured == {name: pytest.approx(share, abs=3) for name, share in SHARES.items()}
