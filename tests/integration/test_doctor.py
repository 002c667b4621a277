"""`pprofpy doctor`: says what works, and for a process whether it can be recorded; never an empty excuse."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from uuid import uuid4

import pytest

from tests.conftest import BURN_AND_REST, PROGRAMS, CommandLine, Start, beside_others, interpreter


def checks_of(cli: CommandLine, *words: str) -> dict[str, dict[str, str]]:
    return {check["topic"]: check for check in json.loads(cli("doctor", "--json", *words).stdout)["checks"]}


def test_every_check_that_is_not_fine_says_what_to_do(cli: CommandLine) -> None:
    checks = checks_of(cli)

    assert {"system", "py-spy", "ptrace", "perf events", "BTF", "tracefs", "eBPF programs"} <= checks.keys()
    assert all(check["remedy"] for check in checks.values() if check["verdict"] != "ok")


def test_a_healthy_process_passes_a_real_trial(cli: CommandLine, start: Start) -> None:
    burning = start(sys.executable, *BURN_AND_REST)

    done = cli("doctor", "--pid", str(burning.pid))

    assert done.returncode == 0, done.stdout
    assert "py-spy read 1 stack" in done.stdout
    assert re.search(r"ok +its heap +the process can be entered", done.stdout)
    assert "'pprofpy cpu' works." in done.stdout


@beside_others
def test_the_kernel_walks_the_stacks_of_the_process_or_the_commands_that_need_it_are_named(
    cli: CommandLine, start: Start
) -> None:
    burning = start(sys.executable, *BURN_AND_REST)
    old = start(interpreter("3.7"), str(PROGRAMS / "sleeper.py"))

    assert re.search(r"ok +its stacks +the kernel walked \d+", cli("doctor", "--pid", str(burning.pid)).stdout)
    refused = cli("doctor", "--pid", str(old.pid))
    assert refused.returncode == 0  # by py-spy it works
    assert re.search(r"warning +its stacks .*3\.7 is not known", refused.stdout)
    assert "needed for: cpu --engine bpf, gil, events, trace --stacks" in refused.stdout


def test_a_stopped_process_is_named_as_such(cli: CommandLine, start: Start) -> None:
    sleeping = start(sys.executable, str(PROGRAMS / "sleeper.py"))
    sleeping.send_signal(signal.SIGSTOP)

    checks = checks_of(cli, "--pid", str(sleeping.pid))

    assert checks["its state"]["remedy"] == f"let it go on: kill -CONT {sleeping.pid}"
    assert (checks["its state"]["verdict"], checks["its heap"]["verdict"]) == ("warning", "failed")


def test_a_process_can_be_named(cli: CommandLine, start: Start) -> None:
    unique = f"3600.{uuid4().int}"  # seconds to burn, as nobody else would put it
    start(sys.executable, BURN_AND_REST[0], unique, BURN_AND_REST[2])

    assert "py-spy read 1 stack" in cli("doctor", "--name", unique).stdout
    assert cli("doctor", "--name", unique, "--pid", "1").returncode == 2


def test_a_process_that_does_not_exist_fails_with_status_4(cli: CommandLine) -> None:
    done = cli("doctor", "--pid", "999999999")

    assert done.returncode == 4
    assert "there is no process 999999999" in done.stdout


@pytest.mark.parametrize("can_probe", [True, False])
def test_without_pyspy_the_remedy_is_to_install_it(can_probe: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel can walk stacks, cpu works all the same."""
    from pprofpy.collectors import doctor
    from pprofpy.collectors.pyspy import executable

    monkeypatch.setattr("shutil.which", lambda _, path=None: None)
    monkeypatch.setattr(doctor, "can_probe", lambda: can_probe)
    executable.find_program.cache_clear()
    executable.version.cache_clear()

    checks = doctor.examine(None)
    check = next(check for check in checks if check.topic == "py-spy")

    executable.find_program.cache_clear()
    expected = (doctor.Verdict.WARNING, "pyspy") if can_probe else (doctor.Verdict.FAILED, "cpu")
    assert (check.verdict, check.needed_for) == expected
    assert doctor.cpu_works([check]) == can_probe
    assert "pip install py-spy" in check.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give up privileges")
def test_without_a_privilege_it_names_the_command_that_has_it(cli: CommandLine, start: Start) -> None:
    burning = start(sys.executable, *BURN_AND_REST)
    unprivileged = ("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-all")

    done = cli("doctor", "--pid", str(burning.pid), prefix=unprivileged)

    assert "--cap-add SYS_PTRACE" in done.stdout
