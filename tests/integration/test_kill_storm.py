"""A few kills (-9) of each recording command; `make storm` makes a thousand of each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import beside_others
from tests.storm import COMMANDS, PHASES, WITHOUT_EBPF, Tally, kill_repeatedly, launch_cold, victims

ROUNDS = len(set(PHASES))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: every command is killed")


@pytest.mark.parametrize(
    "name",
    [name if name in WITHOUT_EBPF else pytest.param(name, marks=beside_others) for name in COMMANDS],
)
def test_a_killed_recorder_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / "profiles"))
    tally = Tally()

    with victims(tmp_path, 1, tally.wrong) as targets:
        kill_repeatedly(name, targets, ROUNDS, launch_cold, tally)

    assert tally.wrong == []
    assert tally.kills == ROUNDS
    assert tally.hit["recording"] >= 1
