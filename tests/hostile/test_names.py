"""Names of threads, functions and files that forge fields or steer terminals."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.conftest import Attack, Hostile
from tests.hostile.recorders import RECORDERS, Dealer, each_of


@each_of(RECORDERS)
def test_names_forge_nothing(words: tuple[str, ...], attack: Attack) -> None:
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "500ms")

    assert outcome.status == 0, outcome.stderr


@Dealer(RECORDERS).some(3)
def test_one_ctrl_c_ends_it(words: tuple[str, ...], attack: Attack) -> None:
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "60", interrupt=True)

    assert outcome.status in (0, 130), outcome.stderr


@pytest.fixture
def roots_package() -> Iterator[Path]:
    """A folder of root's, to which only root has access, with a package."""
    with tempfile.TemporaryDirectory() as place:
        package = Path(place) / "package"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "secret.py").write_text("class Private:\n    def only_root_knows_this(self):\n        return 1\n")
        yield Path(place)


@pytest.mark.parametrize("words", [(), ("hidden",)], ids=["plain", "hidden"])
def test_a_file_that_the_target_could_not_read_is_not_read_for_it(
    words: tuple[str, ...], roots_package: Path, hostile: Hostile, attack: Attack
) -> None:
    """Neither what is in it, nor that it is there."""
    program = hostile("unreadable_source.py", str(roots_package), *words)

    outcome = attack(program, "heap", "--engine", "tracemalloc", "--pid", "PID", "-d", "500ms")

    assert outcome.status == 0, outcome.stderr
    assert "secret" in outcome.stdout
    assert "only_root_knows_this" not in outcome.stdout
    assert "package.secret" not in outcome.stdout
