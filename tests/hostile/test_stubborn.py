"""Targets that ignore signals and fork without end."""

from __future__ import annotations

from tests.hostile.conftest import Attack
from tests.hostile.recorders import RECORDERS, Dealer


@Dealer(RECORDERS).some(4)
def test_a_target_that_forks_and_ignores_signals(words: tuple[str, ...], attack: Attack) -> None:
    attack("stubborn.py", *words, "--pid", "PID", "-d", "1", restless=True)
