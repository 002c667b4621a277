"""The house keeps its plan: imports run downhill, every command has its page, the front doors are links."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pprofpy
from pprofpy.cli.main import COMMANDS

PACKAGE = Path(pprofpy.__file__).parent
ROOT = PACKAGE.parent

MAY_IMPORT = {
    "ground": {"ground"},
    "target": {"ground", "target"},
    "core": {"ground", "core"},
    "formats": {"ground", "core", "formats"},
    "session": {"ground", "target", "core", "session"},
    "collectors": {"ground", "target", "core", "formats", "session", "collectors"},
    "reports": {"ground", "core", "formats", "reports"},
    "cli": {"ground", "target", "core", "formats", "session", "collectors", "reports", "cli"},
}
GROUND = {"errors", "text", "budget", "units", "elf", "folders", "interrupts", "privileges", "rights", "source"}


def floor_of(module: str) -> str:
    part = module.split(".")[1] if "." in module else ""
    return "ground" if part in GROUND else part if part in MAY_IMPORT else "core"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downhill(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if module == "pprofpy.__main__":
        return
    ours = {name for name in imports(path) if name.split(".")[0] == "pprofpy" and name != "pprofpy"}

    uphill = {name for name in ours if floor_of(name) not in MAY_IMPORT[floor_of(module)]}

    assert not uphill


def test_what_proc_says_of_processes_has_one_reader() -> None:
    """What a process writes there (names of threads, of files) is only safe in the hands of target/procfs.py."""
    modules = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}

    others = {
        name: found
        for name, text in modules.items()
        if not name.startswith("target/") and (found := re.findall(r"[\"']/proc/(?:\{|self/(?!fd|ns|statm)).*", text))
    }

    assert 'PROC = Path("/proc")' in modules["target/procfs.py"]
    assert others == {}


@pytest.mark.parametrize("name", ["cli", "collectors", "reports"])
def test_the_three_front_doors_are_links_into_the_package(name: str) -> None:
    link = ROOT / name
    if not link.is_symlink():
        pytest.skip("not a checkout")

    assert link.readlink() == Path("pprofpy") / name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"pprofpy {name}" in (ROOT / "README.md").read_text()


def test_the_help_in_the_docs_is_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "command_docs.py", "--check"], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
