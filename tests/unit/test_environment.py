"""What root runs and loads does not depend on an environment that may be the caller's of sudo."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from pprofpy.collectors.kernel.compiler import _bare_environment
from pprofpy.collectors.pyspy import executable
from pprofpy.errors import NotPossibleError
from pprofpy.target.permission import with_sudo


@pytest.fixture
def found_anew() -> Iterator[None]:
    executable.find_program.cache_clear()
    yield
    executable.find_program.cache_clear()


@pytest.mark.usefixtures("found_anew")
@pytest.mark.parametrize(("user", "is_found"), [(0, False), (1000, True)])
def test_root_runs_no_program_from_the_callers_path(
    user: int, is_found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "py-spy"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin")
    monkeypatch.setattr(executable, "_SYSTEM_PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nowhere")
    monkeypatch.setattr(os, "geteuid", lambda: user)

    if is_found:
        assert executable.find_program() == str(fake)
    else:
        with pytest.raises(NotPossibleError):
            executable.find_program()


def test_the_compiler_sees_nothing_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("C_INCLUDE_PATH", "/home/mallory")
    before = dict(os.environ)

    with _bare_environment(BCC_KERNEL_SOURCE="/ours"):
        assert dict(os.environ) == {"BCC_KERNEL_SOURCE": "/ours"}

    assert dict(os.environ) == before


def test_the_command_suggested_for_root_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/srv/pprofpy/__main__.py", "cpu", "--pid", "1"])
    assert with_sudo() == f"sudo {sys.executable} -I -m pprofpy cpu --pid 1"

    (tmp_path / "pprofpy").touch()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "pprofpy"), "doctor"])
    assert with_sudo() == f"sudo {tmp_path}/pprofpy cpu --pid PID"  # doctor as root would help nobody
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "pprofpy"), "doctor", "--json", "--name", "my shop"])
    assert with_sudo("off-cpu") == f"sudo {tmp_path}/pprofpy off-cpu --name 'my shop'"
