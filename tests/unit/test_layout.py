"""The house keeps its plan: imports run downhill, every command has its page, the front doors are links."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pprofpy
from pprofpy.cli.main import COMMANDS

PACKAGE = Path(pprofpy.__file__).parent
ROOT = PACKAGE.parent

GROUND, FACE = "ground", "face"
"""Modules that lie beside the packages: `errors.py`, `units.py` and the like; what users import and run."""

MAY_IMPORT: dict[str, set[str]] = {
    GROUND: set(),
    "arch": {GROUND},
    "system": {GROUND, "arch"},
    "elf": {GROUND, "arch", "system"},
    "model": {GROUND},
    "target": {GROUND, "arch", "system", "elf"},
    "session": {GROUND, "model", "target"},
    "events": {GROUND, "arch", "model"},
    "formats": {GROUND, "system", "model", "events"},
    "collectors.probes": set(),
    "collectors.cpython": {GROUND, "arch", "system", "elf", "model", "target"},
    "collectors.kernel": {GROUND, "arch", "system", "model", "target", "session", "events"},
    "collectors.attach": {GROUND, "arch", "system", "elf", "target", "collectors.cpython"},
    "collectors.heapagent": {GROUND, "system", "model", "target", "formats", "collectors.cpython", "collectors.attach"},
    "collectors.pystacks": {
        GROUND, "arch", "system", "events", "model", "target", "collectors.cpython", "collectors.kernel",
    },
    "collectors.unwind": {
        GROUND, "arch", "system", "elf", "model", "target", "collectors.cpython", "collectors.kernel",
        "collectors.pystacks",
    },
    "collectors.sampling": {
        GROUND, "model", "target", "session",
        "collectors.cpython", "collectors.kernel", "collectors.pystacks", "collectors.unwind",
    },
    "collectors.scheduling": {
        GROUND, "model", "session", "collectors.kernel", "collectors.pystacks",
    },
    "collectors.pyspy": {
        GROUND, "system", "model", "target", "session", "collectors.cpython", "collectors.sampling",
    },
    "collectors": {
        GROUND, "arch", "system", "model", "target", "session", "events",
        "collectors.attach", "collectors.cpython", "collectors.heapagent", "collectors.kernel", "collectors.pyspy",
        "collectors.pystacks", "collectors.sampling", "collectors.scheduling", "collectors.unwind",
    },
    "reports": {GROUND, "system", "model", "events", "formats"},
    "cli": {
        GROUND, "system", "model", "target", "session", "events", "formats", "reports",
        "collectors", "collectors.kernel", "collectors.sampling",
    },
    FACE: {
        GROUND, "system", "model", "target", "session", "events", "formats", "cli",
        "collectors", "collectors.kernel", "collectors.sampling",
    },
}  # fmt: skip
"""Each package, and all that it may import beside itself."""


def room_of(module: str) -> str:
    """The package that a module is in, as MAY_IMPORT names it."""
    parts = module.split(".")[1:]
    if not parts or parts[0] in ("__main__", "library", "recorded", "running", "traced"):
        return FACE
    if parts[0] == "collectors" and len(parts) > 1 and (PACKAGE / "collectors" / parts[1]).is_dir():
        return f"collectors.{parts[1]}"
    return parts[0] if (PACKAGE / parts[0]).is_dir() else GROUND


def imports(path: Path) -> Iterator[str]:
    """The modules and packages of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("pprofpy."))
        elif isinstance(node, ast.ImportFrom) and node.module == "pprofpy":
            yield from (f"pprofpy.{alias.name}" for alias in node.names if not alias.name.startswith("__"))
        elif isinstance(node, ast.ImportFrom) and node.module == "pprofpy.collectors":
            yield from (f"pprofpy.collectors.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pprofpy."):
            yield node.module


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_keep_to_the_table(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    room = room_of(module)

    assert room in MAY_IMPORT, f"{room} is a package that the table does not know"
    found = {room_of(name) for name in imports(path)} - {room}

    assert found <= MAY_IMPORT[room]


def test_the_table_has_no_package_that_is_gone_and_no_cycle() -> None:
    rooms = {room_of(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in PACKAGE.rglob("*.py")}
    left = dict(MAY_IMPORT)

    while free := [room for room, others in left.items() if not others & left.keys()]:
        for room in free:
            del left[room]

    assert rooms == MAY_IMPORT.keys()
    assert left == {}


def test_no_module_imports_itself_in_a_circle() -> None:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    graph = {
        module: {name for name in imported_at_once(path, paths.keys()) if name != module}
        for module, path in paths.items()
    }

    assert any("pprofpy.target.procfs" in names for names in graph.values())
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def imported_at_once(path: Path, modules: Collection[str]) -> Iterator[str]:
    """The modules that a file imports while it is imported itself."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module in modules:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from (names & set(modules)) or {node.module}


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


# -- names and sizes -----------------------------------------------------------------------------------------------

COMMAND_MODULES = {name.replace("-", "_") for name in COMMANDS}
SHARED = {
    "errors": "the errors of a package, which other packages need not know",
    "losses": "what a recording lacks: counted, kept, put into words",
    "recorder": "a Recorder, or what several of them share",
    "recording": "a Recording: the noun, and its file",
    "refusals": "how refusals are worded",
    "switches": "switches of threads on CPUs: as they happen, and as records",
    "system_calls": "those of an architecture",
    "text": "text made fit for a terminal",
}
"""Names that several modules bear besides those of commands, since they mean the same."""

MOST_LINES = 400


def definitions(kind: type[ast.AST]) -> dict[str, list[str]]:
    """Name -> where something of this kind is defined at the top of a module."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, kind):
                found.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))  # type: ignore[attr-defined]
    return found


def test_modules_share_a_name_only_with_what_they_mean() -> None:
    named: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.stem not in ("__init__", "__main__"):
            named.setdefault(path.stem, []).append(str(path.relative_to(PACKAGE)))
    shared = {stem for stem, paths in named.items() if len(paths) > 1}

    assert {stem: named[stem] for stem in shared - COMMAND_MODULES - SHARED.keys()} == {}
    assert SHARED.keys() - shared == set()


def test_public_classes_have_names_of_their_own() -> None:
    """But for `Row`: each report calls so what its `build` makes."""
    found = {name: paths for name, paths in definitions(ast.ClassDef).items() if len(paths) > 1 and name[0] != "_"}

    assert all(path.startswith("reports/") for path in found.pop("Row"))
    assert found == {}


@pytest.mark.parametrize("suffix", [".py", ".c", ".h"])
def test_a_file_that_is_long_says_why_in_its_first_lines(suffix: str) -> None:
    paths = list(PACKAGE.rglob(f"*{suffix}"))
    long = [path for path in paths if path.read_text().count("\n") > MOST_LINES]

    assert paths
    assert [path for path in long if "one file because" not in " ".join(path.read_text().split("\n")[:8])] == []
