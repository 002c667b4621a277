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


EVERYTHING = bool(os.environ.get("PPROFPY_HOSTILE"))
"""`make hostile` tries each command in each surroundings; `make test` deals the commands out."""

Words = tuple[str, ...]


class Dealer:
    """Deals commands to the tests of a module, in turn: a few to each test, each of them to one test at least."""

    def __init__(self, commands: Sequence[Words]) -> None:
        self._commands = commands
        self._turn = 0

    def _next(self, count: int) -> set[int]:
        """The places of the next commands."""
        turns = range(self._turn, self._turn + count)
        self._turn += count
        return {turn % len(self._commands) for turn in turns}

    def some(self, count: int = 2) -> pytest.MarkDecorator:
        """Have a test take `words`: the next `count` commands; `make hostile` tries all."""
        chosen = self._next(count)
        return each_of([words for place, words in enumerate(self._commands) if EVERYTHING or place in chosen])

    def pairs(self, cases: Sequence[str], name: str) -> pytest.MarkDecorator:
        """Have a test take `name` and `words`: each case with the next command; `make hostile` tries all pairs."""
        return pytest.mark.parametrize(
            (name, "words"),
            [
                pytest.param(case, words, id=f"{case}-{identity(words)}", marks=marks_of(words))
                for case in cases
                for chosen in [self._next(1)]
                for place, words in enumerate(self._commands)
                if EVERYTHING or place in chosen
            ],
        )


def each_of(commands: Sequence[Words]) -> pytest.MarkDecorator:
    """Have a test take `words`: these commands, one after the other."""
    return pytest.mark.parametrize(
        "words", [pytest.param(words, id=identity(words), marks=marks_of(words)) for words in commands]
    )


def with_subprocesses(words: Words) -> Words:
    """The command, told to record child processes, too."""
    return (*words, "--subprocesses")


def identity(words: Words) -> str:
    return "-".join(words[:3])


def marks_of(words: Words) -> tuple[pytest.MarkDecorator, ...]:
    return () if has_no_probes(words) else (beside_others,)


def has_no_probes(words: tuple[str, ...]) -> bool:
    """Does this command work from outside of the kernel?"""
    return words[0] == "heap" or "py-spy" in words
