"""Interpreters and native files that forge their structures: what is read of them ends, soon and in little memory."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict

import pytest

from pprofpy.collectors.cpython.versions import VERSIONS
from tests.conftest import beside_others, interpreter
from tests.hostile.conftest import Attack, Hostile
from tests.hostile.recorders import Dealer

pytestmark = beside_others

FORGERIES = (
    "interpreters", "threads", "many_threads", "many_interpreters", "frames", "tables", "lines", "texts", "dicts",
    "types", "idents",
)  # fmt: skip
RECORDERS = (("cpu", "--engine", "bpf", "--threads", "--idle"), ("off-cpu",), ("gil",))


def layout_of_system() -> str:
    code = "import json, sys; print(json.dumps(sys.version_info[:2]))"
    version = tuple(json.loads(subprocess.check_output([interpreter("system"), "-c", code])))
    if version not in VERSIONS:
        pytest.skip(f"the layout of the system's Python {version} is not known")
    return json.dumps(asdict(VERSIONS[version].layout))


@Dealer(RECORDERS).pairs(FORGERIES, "what")
def test_forged_structures_cost_nothing(what: str, words: tuple[str, ...], hostile: Hostile, attack: Attack) -> None:
    process = hostile("structures.py", what, layout_of_system())

    outcome = attack(process, *words, "--pid", "PID", "-d", "500ms")

    assert outcome.status in (0, 4), outcome.stderr
    if what in ("types", "idents") and words[0] != "off-cpu":
        assert "cannot be read" in outcome.stderr


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize("what", ["states", "rows", "numbers", "expressions"])
def test_forged_tables_of_native_code_cost_nothing(what: str, hostile: Hostile, attack: Attack) -> None:
    process = hostile("native_tables.py", what)

    outcome = attack(process, "cpu", "--engine", "bpf", "--native", "-r", "200", "--pid", "PID", "-d", "500ms")

    assert outcome.status == 0, outcome.stderr
