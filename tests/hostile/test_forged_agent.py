"""Targets that change what the heap agent does in them, or forge what it says."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.conftest import Attack, Hostile
from tests.hostile.recorders import Dealer

SECRET = b"nobody but root writes here"
dealer = Dealer([("heap", "--engine", engine) for engine in ("sampling", "tracemalloc")])
FILES = ["path", "path_only", "named", "fifo", "device", "number", "negative", "inode"]
ANSWERS = ["frames", "five_bytes", "nested", "itself", "long", "text", "raises"]
CONTENTS = ["no_end", "zeros", "cut"]


@pytest.fixture
def victim() -> Iterator[Path]:
    """A file that only root may read or write, in a folder that everybody may look into."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        path = Path(folder) / "victim"
        path.write_bytes(SECRET)
        path.chmod(0o600)
        yield path


@dealer.pairs(FILES, "mode")
def test_only_the_agents_own_file_is_opened_and_none_is_written(
    mode: str, words: tuple[str, ...], victim: Path, attack: Attack, hostile: Hostile
) -> None:
    program = hostile("forged_agent.py", mode, str(victim))

    outcome = attack(program, *words, "--pid", "PID", "-d", "500ms", restless=True)

    assert outcome.status in (3, 4), outcome.stderr
    assert victim.read_bytes() == SECRET
    assert SECRET.decode() not in outcome.stdout + outcome.stderr


@dealer.some(2)
def test_a_file_that_changes_all_the_time_leads_nowhere(
    words: tuple[str, ...], victim: Path, attack: Attack, hostile: Hostile
) -> None:
    """It is cut, exchanged for another and shared with children while both sides use it."""
    program = hostile("forged_agent.py", "race", str(victim))

    outcome = attack(program, *words, "--pid", "PID", "-d", "500ms", restless=True)

    assert outcome.status in (0, 1, 3, 4), outcome.stderr
    assert victim.read_bytes() == SECRET
    assert SECRET.decode() not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize("mode", ANSWERS)
def test_answers_that_make_no_sense_are_refused(mode: str, attack: Attack, hostile: Hostile) -> None:
    outcome = attack(hostile("forged_agent.py", mode), "heap", "--pid", "PID", "-d", "500ms", restless=True)

    assert outcome.status in (1, 4)
    assert len(outcome.stderr) < 2000


@dealer.pairs(CONTENTS, "mode")
def test_contents_that_make_no_sense_are_refused(
    mode: str, words: tuple[str, ...], attack: Attack, hostile: Hostile
) -> None:
    program = hostile("forged_agent.py", mode)

    outcome = attack(program, *words, "--pid", "PID", "-d", "500ms", restless=True)

    assert outcome.status == 4
    of_library = "somebody writes to the file"  # that the sampler is loaded from
    assert "makes no sense" in outcome.stderr or of_library in outcome.stderr
