"""Compiles the heap sampler when the package is built or installed; without a compiler the package goes without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("pprofpy/collectors/heapagent")
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden", "-s"]
STANDALONE = ["-nostdlib", "-Wl,-z,nodelete", "-Wl,-z,noseparate-code", "-Wl,--build-id=none"]
"""Linked against nothing, so that no version of libc or Python is asked for where it is loaded; and never unloaded."""


class CustomBuildHook(BuildHookInterface[Any]):
    """Makes sampler.so beside its source: wheels take it from there, editable installs find it there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; the wheel is for this machine's kind then, and for any Python 3."""
        folder = Path(self.root) / FOLDER
        library = folder / "sampler.so"
        library.unlink(missing_ok=True)
        if reason := compile_sampler(folder / "sampler.c", library):
            self.app.display_warning(f"{reason}: 'pprofpy heap' will only have the engine tracemalloc")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(str(FOLDER / library.name))


def compile_sampler(source: Path, library: Path) -> str:
    """Compile; returns why that was not possible, or nothing."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return "there is no C compiler"
    temporary = library.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, *FLAGS, *STANDALONE, "-o", str(temporary), str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        temporary.unlink(missing_ok=True)
        return f"the sampler does not compile: {done.stderr.strip()[-300:]}"
    temporary.rename(library)
    return ""
