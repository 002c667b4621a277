"""Targets that ignore signals and fork without end."""

from __future__ import annotations

import pytest

from tests.hostile.conftest import Attack
from tests.hostile.test_names import RECORDERS


@pytest.mark.ebpf
@pytest.mark.parametrize("words", RECORDERS, ids=lambda words: "-".join(words[:3]).replace("---", "-"))
def test_a_target_that_forks_and_ignores_signals(words: tuple[str, ...], attack: Attack) -> None:
    attack("stubborn.py", *words, "--pid", "PID", "-d", "1", restless=True)
