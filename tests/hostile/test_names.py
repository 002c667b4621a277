"""Names of threads, functions and files that forge fields or steer terminals."""

from __future__ import annotations

from tests.hostile.conftest import Attack
from tests.hostile.recorders import RECORDERS, Dealer, each_of


@each_of(RECORDERS)
def test_names_forge_nothing(words: tuple[str, ...], attack: Attack) -> None:
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "1")

    assert outcome.status == 0, outcome.stderr


@Dealer(RECORDERS).some(3)
def test_one_ctrl_c_ends_it(words: tuple[str, ...], attack: Attack) -> None:
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "60", interrupt=True)

    assert outcome.status in (0, 130), outcome.stderr
