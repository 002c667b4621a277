"""Which of several interpreters in a process is the one that runs, proved before anything is done to it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pprofpy.collectors.cpython.runtime import find_runtime, living_runtime
from pprofpy.collectors.cpython.versions import spelled
from pprofpy.errors import NotPossibleError, NotStartedError
from pprofpy.target import open_target
from tests.conftest import FREE_PYTHONS, PROGRAMS, PYTHONS, Start, interpreter

VERSIONS = (*PYTHONS, *FREE_PYTHONS, "system")
PROGRAM = str(PROGRAMS / "twice_mapped.py")


def library_of(version: str) -> Path:
    """The libpython of an interpreter; skips the test if it is linked into the program."""
    code = "import sysconfig as s; print(s.get_config_var('LIBDIR') + '/' + s.get_config_var('INSTSONAME'))"
    path = Path(subprocess.check_output([interpreter(version), "-c", code], text=True).strip())
    if path.suffix == ".a" or not path.exists():
        pytest.skip(f"Python {version} has no library here")
    return path


def another_library(version: str) -> Path:
    """A libpython that is not the one in use: Debian's for its own static interpreter, else of another version."""
    debian = sorted(Path("/usr/lib").glob("*/libpython3.*.so.1.0"))
    return debian[0] if debian else library_of("3.11" if version != "3.11" else "3.12")


SAY = """
import ctypes, sys
sys.argv = ["", *{arguments!r}]
print("ready", flush=True)
print(ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime")), flush=True)
exec(open({program!r}).read())
"""


@pytest.mark.parametrize("mode", ["nothing", "read", "load"])
@pytest.mark.parametrize("version", VERSIONS)
def test_the_interpreter_that_runs_is_told_from_copies(version: str, mode: str, start: Start) -> None:
    arguments = [mode, *([str(another_library(version))] if mode == "load" else [])]
    process = start(interpreter(version), "-c", SAY.format(arguments=arguments, program=PROGRAM))
    assert process.stdout is not None
    said = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    target = open_target(process.pid)

    found = living_runtime(target)

    assert found.address == said == find_runtime(target).address
    assert found.image.start <= said
    assert Path(found.image.interpreter.path).exists()
    if version != "system":
        assert spelled(found.version) + "t" * found.is_free_threaded == version


@pytest.mark.parametrize("version", ["3.9", "3.12"])
def test_two_interpreters_in_use_are_refused(version: str, start: Start, tmp_path: Path) -> None:
    copy = shutil.copy(library_of(version), tmp_path / "libpython3-copy.so")
    target = open_target(start(interpreter(version), PROGRAM, "initialize", str(copy)).pid)

    for find in (living_runtime, find_runtime):
        with pytest.raises(NotPossibleError, match="several interpreters are in use") as caught:
            find(target)
        assert str(copy) in caught.value.message


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize("version", ["3.8", "3.10", "3.11", "3.12", "3.13"])
@pytest.mark.parametrize("is_initialized", [True, False])
def test_an_embedded_interpreter_that_idles_is_living_and_one_not_initialized_is_not(
    version: str, is_initialized: bool, start: Start, tmp_path: Path
) -> None:
    library, program = library_of(version), tmp_path / "embedder"
    include = subprocess.check_output(
        [interpreter(version), "-c", "import sysconfig; print(sysconfig.get_paths()['include'])"], text=True
    ).strip()
    source = (PROGRAMS / "idle_embedder.c").read_text()
    if not is_initialized:
        source = source.replace("Py_InitializeEx(0);", "if (Py_IsInitialized()) return 1;").replace(
            "PyEval_SaveThread();", ""
        )
    (tmp_path / "embedder.c").write_text(source)
    subprocess.run(
        ["cc", "-w", f"-I{include}", "-o", program, tmp_path / "embedder.c", library, f"-Wl,-rpath,{library.parent}"],
        check=True,
    )
    prefix = str(library.parent.parent)
    target = open_target(start(str(program), env={"PYTHONHOME": prefix}).pid)

    if is_initialized:
        assert living_runtime(target).address == find_runtime(target).address
    else:
        with pytest.raises(NotStartedError, match="loaded, but does not use it"):
            living_runtime(target)
