"""What becomes of what other kernels say of our programs: recorded answers, and the page that they are written to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import kernel_report
from tests.kernel_programs import VARIANTS
from tests.kernel_report import BEGIN, END, OLD, PAGE, RESULTS, matrix, refusals, unexpected
from tests.kernel_truth import STEPS

COMPILED: list[dict[str, Any]] = [
    {"variant": "cpu", "source": "cpu.bpf.c", "helpers": {"on_clock": [1, 158, 175], "python_on_exit": [3]}},
    {"variant": "sched-latency", "source": "sched_latency.bpf.c", "helpers": {"on_switch": [1]}},
    {"variant": "odd", "refused": "this kernel has no task_struct.pid: it is none that pprofpy knows"},
]
SAID = """\
kernel: Linux 5.10.0-32-cloud-amd64 is up
kernel: REFUSED cpu: on_clock (16.7 s): Invalid argument
kernel:     invalid func unknown#158
kernel:     verification time 16714492 usec
kernel:     stack depth 128
kernel:     processed 300738 insns (limit 1000000) max_states_per_insn 47 total_states 3303
kernel: accepted cpu: python_on_exit (0.0 s)
kernel: accepted sched-latency: on_switch (0.1 s)
kernel: done, 1 of 3 programs refused
"""
"""Linux 5.10, in scripts/kernel_init.c's words."""

TRIED = (*OLD, "6.1", "6.12", "newest")
RELEASE = "5.10.0-32-cloud-amd64"


def found(said: str = SAID) -> dict[str, str]:
    return refusals(map(json.dumps, COMPILED), said.splitlines(), RELEASE)


def test_a_refusal_is_what_pprofpy_tells_its_user() -> None:
    told = found()

    assert told["cpu"] == (
        "this takes Linux 5.15 or newer: Linux 5.10.0-32-cloud-amd64 does not offer bpf_get_current_task_btf, "
        "bpf_task_pt_regs here"
    )
    assert told["sched-latency"] == ""
    assert told["odd"] == COMPILED[2]["refused"]


def test_an_old_kernel_may_refuse_what_it_lacks_and_no_other_may() -> None:
    told = found()

    assert [text.split(":")[0] for text in unexpected("5.10", told)] == ["odd"]
    assert [text.split(":")[0] for text in unexpected("6.1", told)] == ["cpu", "odd"]


def test_a_program_of_which_the_kernel_says_nothing_is_missed() -> None:
    with pytest.raises(ValueError, match="nothing of sched-latency"):
        found(SAID.replace("kernel: accepted sched-latency: on_switch (0.1 s)\n", ""))


def test_tables_show_each_refusal_once_and_what_was_not_tried() -> None:
    results: dict[str, dict[str, Any]] = {
        "5.10 amd64": {"release": RELEASE, "date": "2026-11-30", "variants": found()},
        "6.1 arm64": {
            "release": "6.1.0-50-cloud-arm64",
            "date": "2026-11-30",
            "variants": {"cpu": "", "gil": ""},
            "truths": {"cpu": {"said": "50/30/15/5 of 50/30/15/5 %", "is_right": False}},
            "truths_release": "6.1.0-50-cloud-arm64",
            "truths_date": "2026-11-30",
        },
    }

    lines = matrix(results).splitlines()

    assert lines[0] == "| command | 5.10.0-32, x86-64 | 6.1.0-50, arm64 |"
    assert lines[2:6] == [
        "| `cpu` | refused (1) | accepted |",
        "| `sched-latency` | accepted | not tried |",
        "| `odd` | refused (2) | not tried |",
        "| `gil` | not tried | accepted |",
    ]
    assert "| `cpu` | 50/30/15/5 of 50/30/15/5 % | **no** |" in lines


def test_the_page_is_what_was_tried_last() -> None:
    results = json.loads(RESULTS.read_text())
    written = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]

    assert written.strip() == matrix(results)
    assert PAGE.parents[1] == kernel_report.ROOT


def test_on_every_kernel_everything_works_or_the_refusal_names_a_version() -> None:
    results = json.loads(RESULTS.read_text())

    tried = {f"{version} {architecture}" for version in TRIED for architecture in ("amd64", "arm64")}
    assert tried == results.keys()
    for name, result in results.items():
        assert result["variants"].keys() <= VARIANTS.keys(), name
        assert unexpected(name.split()[0], result["variants"]) == [], name
    assert all(any(result["variants"].values()) is (name.split()[0] in OLD) for name, result in results.items())


def test_recordings_on_other_kernels_were_right() -> None:
    recorded = {
        name: result["truths"] for name, result in json.loads(RESULTS.read_text()).items() if "truths" in result
    }

    assert any(name.endswith("arm64") for name in recorded)
    for name, truths in recorded.items():
        assert truths.keys() >= STEPS.keys(), name
        assert [command for command, one in truths.items() if not one["is_right"]] == [], name
