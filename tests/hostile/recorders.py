"""The recording commands, for tests that try each of them. Only those that load eBPF programs are marked so."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from tests.conftest import beside_others

RECORDERS = [
    ("cpu", "--engine", "bpf", "--threads", "--idle"),
    ("cpu", "--engine", "py-spy", "--threads"),
    ("heap", "--engine", "sampling", "--sample-bytes", "64k"),
    ("heap", "--engine", "tracemalloc"),
    ("off-cpu",),
    ("gil",),
    ("sched-latency", "--stacks"),
    ("events", "-e", "page-faults"),
    ("trace",),
]
FEW = [*RECORDERS[:3], ("off-cpu",), ("trace",)]
"""One of each way to record; the others share theirs with one of these."""


def each_of(commands: list[tuple[str, ...]]) -> pytest.MarkDecorator:
    """Have a test take `words`: these commands, one after the other."""
    return pytest.mark.parametrize(
        "words",
        [
            pytest.param(words, id="-".join(words[:3]), marks=() if has_no_probes(words) else beside_others)
            for words in commands
        ],
    )


def pairs_of(cases: Sequence[str], commands: Sequence[tuple[str, ...]], name: str) -> pytest.MarkDecorator:
    """Have a test take `name` and `words`: each case and each command once at least; `make hostile` tries all pairs."""
    everything = bool(os.environ.get("PPROFPY_HOSTILE"))
    chosen = {(turn % len(cases), turn % len(commands)) for turn in range(max(len(cases), len(commands)))}
    return pytest.mark.parametrize(
        (name, "words"),
        [
            pytest.param(case, words, id=f"{case}-{words[0]}", marks=() if has_no_probes(words) else beside_others)
            for place, case in enumerate(cases)
            for index, words in enumerate(commands)
            if everything or (place, index) in chosen
        ],
    )


def has_no_probes(words: tuple[str, ...]) -> bool:
    """Does this command work from outside of the kernel?"""
    return words[0] == "heap" or "py-spy" in words
