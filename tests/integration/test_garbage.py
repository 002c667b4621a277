"""Samples in garbage collection say so, and of which generation."""

from __future__ import annotations

from collections import Counter

import pytest

from pprofpy.target import open_target
from tests.conftest import PROGRAMS, PYTHONS, Start, beside_others, interpreter, rounds_until_right
from tests.cpu import let_run, recorder

pytestmark = beside_others

MARK = "<GC generation"


@pytest.mark.parametrize("version", PYTHONS)
def test_samples_in_garbage_collection_say_so(start: Start, version: str) -> None:
    process = start(interpreter(version), str(PROGRAMS / "collects.py"))
    counts: Counter[tuple[str, str]] = Counter()
    with recorder(5000) as recording:
        recording.watch(open_target(process.pid))

        def measure() -> list[str]:
            let_run(recording, 0.5)
            for sample in recording.window().profile.samples():
                mark = sample.stack[0].function.name if sample.stack[0].function.name.startswith("<GC") else ""
                function = sample.stack[bool(mark)].function.system_name.rpartition(".")[2]
                counts[function, mark] += sample.values[0]
            of_another = sum(
                count
                for (function, mark), count in counts.items()
                if mark and mark != f"{MARK} {function.removeprefix('collects_')}>"
            )
            few = [n for n in range(3) if counts[f"collects_{n}", f"{MARK} {n}>"] < 50]
            # The generations' counts are set some hundred instructions after the collection has begun.
            assert of_another <= 1 + 0.01 * counts.total(), counts
            collecting = sum(count for (_, mark), count in counts.items() if mark)
            computing = sum(count for (function, _), count in counts.items() if function == "computes")
            # It computes for as long as it has collected; a sample more or less is chance.
            unequal = abs(collecting - computing) > 0.05 * (collecting + computing)
            told = [f"{collecting} samples in the collector, {computing} beside it"] if unequal else []
            return told + [f"generation {n} was met too seldom: {counts}" for n in few]

        rounds_until_right(measure, rounds=60)
