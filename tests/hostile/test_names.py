"""Names of threads, functions and files that forge fields or steer terminals."""

from __future__ import annotations

import pytest

from tests.hostile.conftest import Attack

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


@pytest.mark.ebpf
@pytest.mark.parametrize("words", RECORDERS, ids=lambda words: "-".join(words[:3]).replace("---", "-"))
def test_names_forge_nothing(words: tuple[str, ...], attack: Attack) -> None:
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "1")

    assert outcome.status == 0, outcome.stderr


@pytest.mark.ebpf
@pytest.mark.parametrize("words", RECORDERS, ids=lambda words: "-".join(words[:3]).replace("---", "-"))
def test_one_ctrl_c_ends_it(words: tuple[str, ...], attack: Attack) -> None:
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "60", interrupt=True)

    assert outcome.status in (0, 130), outcome.stderr
