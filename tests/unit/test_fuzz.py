"""What fuzzing found stays mended, and a few thousand inputs find nothing new. `make fuzz` tries a million."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.worker import Outcome, run

CORPUS = Path(__file__).parents[1] / "corpus"
FOUND = sorted(path.name for path in CORPUS.iterdir())
SEED = 2026


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_are_read_or_refused(name: str) -> None:
    target = TARGETS[name]
    outcome = run(target, partial(target.input, SEED), 0, 20 + target.share // 500)

    assert [finding.what for finding in outcome.findings] == []


@pytest.mark.parametrize("name", TARGETS)
def test_valid_inputs_are_read(name: str) -> None:
    """Otherwise all their mutants would be refused at once, and nothing be tried."""
    seeds = TARGETS[name].seeds()

    for seed in seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_stays_mended(name: str) -> None:
    outcome = run(TARGETS[name.partition(".")[0]], lambda _: (CORPUS / name).read_bytes(), 0, 1)

    assert [finding.what for finding in outcome.findings] == []


class TestTheFuzzer:
    """It sees what it is there to see, and goes on."""

    @staticmethod
    def outcome(run_one: object, count: int = 3) -> Outcome:
        target = Target("test", 1, lambda: [b""], lambda _, data: data, run_one)  # type: ignore[arg-type]
        return run(target, lambda number: bytes([number]), 0, count)

    def test_an_error_that_is_none_of_ours(self) -> None:
        outcome = self.outcome(lambda data: {}[data])

        assert outcome.inputs == 3
        assert len(outcome.findings) == 1
        assert "KeyError" in outcome.findings[0].what

    def test_a_crash(self) -> None:

        outcome = self.outcome(lambda data: os.kill(os.getpid(), signal.SIGKILL) if data == b"\1" else None)

        assert outcome.inputs == 3
        assert [(finding.number, "status 0x9" in finding.what) for finding in outcome.findings] == [(1, True)]

    def test_a_fault_of_its_own(self) -> None:
        with pytest.raises(RuntimeError, match="the fuzzer is at fault"):
            run(TARGETS["pprof"], lambda number: b""[number : number + 1] + None, 0, 3)  # type: ignore[operator]

    def test_a_loop_without_end(self) -> None:
        def endless(_: bytes) -> None:
            while True:
                pass

        assert "CPU time" in self.outcome(endless, 1).findings[0].what

    @pytest.mark.parametrize("size", [300 << 20, 3 << 30])
    def test_much_memory(self, size: int) -> None:
        assert self.outcome(lambda _: len(b"x" * size), 1).findings

    def test_the_same_inputs_for_a_seed(self) -> None:
        target = TARGETS["pprof"]

        assert target.input(1, 5) == target.input(1, 5) != target.input(2, 5)
