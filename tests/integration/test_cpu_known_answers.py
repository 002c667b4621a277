"""A program that knows its own shares is reported with them, on every interpreter."""

from __future__ import annotations

import os

import pytest

from pprofpy.collectors.pyspy.recorder import STARVED_NOTE
from pprofpy.formats.files import read_profile
from pprofpy.graph import build_graph
from pprofpy.profile import Profile, merge
from tests.conftest import PROGRAMS, CommandLine, Start, interpreter

pytestmark = pytest.mark.xdist_group("known answers")
"""One after the other: each of these programs takes a whole CPU."""

SHARES = {"burn.half": 50, "burn.third": 30, "burn.seventh": 15, "burn.rest": 5}
RATE_HZ, SECONDS = 500, 10
"""5000 looks: 3 points are more than four standard deviations of chance, for the largest share."""

ATTEMPTS = 4
"""Where the machine is so busy that py-spy looks in bursts, looks are worth less: then all attempts are summed up."""

FIRST = ("nice", "-n", "-20") if os.geteuid() == 0 else ()
"""Between two looks of a burst the program should get a CPU, or both see the same."""


def record(pid: int, cli: CommandLine) -> Profile:
    recordings: list[Profile] = []
    for attempt in range(ATTEMPTS):
        path = cli.folder / f"{attempt}.pb.gz"
        cli.folder.mkdir(exist_ok=True)
        done = cli("cpu", "-p", str(pid), "-d", str(SECONDS), "-r", str(RATE_HZ), "-o", str(path))
        assert done.returncode == 0, done.stderr
        recordings.append(read_profile(str(path)))
        if not any(note.startswith(STARVED_NOTE) for note in recordings[-1].collection.notes):
            return recordings[-1]
    return merge(recordings)


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "system"])
def test_each_function_gets_its_share(version: str, cli: CommandLine, start: Start) -> None:
    burning = start(*FIRST, interpreter(version), str(PROGRAMS / "burn.py"))

    profile = record(burning.pid, cli)

    graph = build_graph(profile, profile.value_index("cpu"))
    shares = {
        entity.name: 100 * flat / graph.total for entity, flat in zip(graph.entities, graph.flat.tolist(), strict=True)
    }
    measured = {name: round(shares[name], 1) for name in SHARES}
    assert measured == {name: pytest.approx(share, abs=3) for name, share in SHARES.items()}
