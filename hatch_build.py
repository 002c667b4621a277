"""Compiles the heap sampler when the package is built or installed; without a compiler the package goes without it."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("pprofpy/collectors/heapagent")
VERSIONS = Path("pprofpy/collectors/cpython/versions.py")
FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden", "-s"]
STANDALONE = ["-nostdlib", "-Wl,-z,nodelete", "-Wl,-z,noseparate-code", "-Wl,--build-id=none"]
"""Linked against nothing, so that no version of libc or Python is asked for where it is loaded; and never unloaded."""
LIBRARIES = {"sampler.so": ["-ftls-model=initial-exec"], "sampler_musl.so": ["-ftls-model=global-dynamic"]}
"""The first finds what belongs to a thread sooner; musl loads only the other into a process that runs already."""


class CustomBuildHook(BuildHookInterface[Any]):
    """Makes the libraries beside their source: wheels take them from there, editable installs find them there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; the wheel is for this machine's kind then, and for any Python 3."""
        folder = Path(self.root) / FOLDER
        versions = [f"-D{name}={value}" for name, value in sampler_defines(Path(self.root) / VERSIONS).items()]
        for name, flags in LIBRARIES.items():
            (folder / name).unlink(missing_ok=True)
            if reason := compile_sampler(folder / "sampler" / "sampler.c", folder / name, [*flags, *versions]):
                self.app.display_warning(f"{reason}: 'pprofpy heap' will only have the engine tracemalloc")
                return
            build_data["artifacts"].append(str(FOLDER / name))
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"


def sampler_defines(versions: Path) -> dict[str, str]:
    """What differs between versions of CPython. The package itself cannot be imported yet: it needs others."""
    defines: dict[str, str] = runpy.run_path(str(versions))["sampler_defines"]()
    return defines


def compile_sampler(source: Path, library: Path, flags: list[str]) -> str:
    """Compile; returns why that was not possible, or nothing."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return "there is no C compiler"
    temporary = library.with_suffix(f".{os.getpid()}")
    command = [compiler, *FLAGS, *flags, *STANDALONE, "-o", str(temporary), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        temporary.unlink(missing_ok=True)
        return f"the sampler does not compile: {done.stderr.strip()[-300:]}"
    temporary.rename(library)
    return ""
