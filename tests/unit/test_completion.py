"""What TAB offers, and that nothing gets into a command line that a shell would take for something else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.shell_completion import ShellComplete

from pprofpy import target as targets
from pprofpy.cli import confinement
from pprofpy.cli.main import pprofpy
from pprofpy.formats import recording
from pprofpy.model.recording import Recording
from pprofpy.target import procfs
from tests.stacks import profile_of


def offered(*words: str) -> list[str]:
    """What is offered for the last word."""
    completer = ShellComplete(pprofpy, {}, "pprofpy", "_PPROFPY_COMPLETE")
    return [item.value for item in completer.get_completions(list(words[:-1]), words[-1]) if item.type == "plain"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recordings; the newer one has functions that are dangerous in a shell."""
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path))
    monkeypatch.setattr(confinement, "_is_own_process", False)
    tmp_path.chmod(0o700)
    older = {"main > shop.older": 1}
    newer = {"main > shop.price": 5, "main > shop.pay": 2, "main > shop.$(reboot)": 9, "main > shop.x;y": 1, "a b": 1}
    for number, (name, counts) in enumerate({"cpu-old-1": older, "cpu-new-2": newer, "cpu-$(reboot)": older}.items()):
        file = tmp_path / f"{name}.pb.gz"
        file.write_bytes(recording.write(Recording("cpu", profile_of(counts))))
        os.utime(file, (1000 + number % 2, 1000 + number % 2))
    return tmp_path


@pytest.mark.parametrize("command", ["list", "peek"])
@pytest.mark.usefixtures("folder")
def test_functions_of_the_latest_recording_the_dearest_first(command: str) -> None:
    assert offered(command, "") == ["main", "shop.price", "shop.pay"]
    assert offered(command, "shop.pa") == ["shop.pay"]
    assert offered(command, "nothing") == []


def test_recordings_by_their_path_or_name_the_newest_first(folder: Path) -> None:
    new, old = (str(folder / f"cpu-{name}.pb.gz") for name in ("new-2", "old-1"))

    assert offered("top", "") == [new, old]
    assert offered("show", "cpu-o") == [old]
    assert offered("flamegraph", str(folder / "cpu-n")) == [new]


def test_without_a_recording_there_is_nothing_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / "none"))

    assert offered("list", "") == []
    assert offered("top", "") == []


def test_pids_of_python_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "python_processes", lambda: [SimpleNamespace(pid=pid) for pid in (12, 123, 45)])
    monkeypatch.setattr(targets, "summary", lambda process: "shop.py")

    assert offered("cpu", "--pid", "1") == ["12", "123"]
    assert offered("doctor", "--pid", "") == ["12", "123", "45"]


def test_engines() -> None:
    assert offered("cpu", "--engine", "") == ["auto", "bpf", "py-spy"]
    assert offered("heap", "--engine", "t") == ["tracemalloc"]


def test_the_shell_is_answered() -> None:
    environment = {**os.environ, "_PPROFPY_COMPLETE": "bash_complete", "COMP_WORDS": "pprofpy off", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pprofpy"], env=environment, capture_output=True, text=True, check=False
    )

    assert done.stdout == "plain,off-cpu\n"


def test_ids_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "_is_own_process", False)
    monkeypatch.setattr(procfs, "pids", lambda: [7, 8])
    monkeypatch.setattr(procfs, "control_groups", lambda pid: [("", f"/docker/{'ab' if pid == 7 else 'cd'}{'0' * 62}")])

    assert offered("cpu", "--container", "") == ["ab0000000000", "cd0000000000"]
    assert offered("off-cpu", "--container", "cd0") == ["cd0000000000"]
