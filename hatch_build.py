"""Compiles the heap sampler when the package is built or installed; without a compiler the package goes without it.

With PPROFPY_WHEEL_FOR=x86_64 or aarch64 in the environment (`make wheel`) it is a wheel for all Linux machines of that
kind, whatever the C library: the sampler is linked against none, and programs for the kernel know no machine. Nothing
may be missing then.
"""

from __future__ import annotations

import os
import platform
import runpy
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("pprofpy/collectors/heapagent")
PROGRAMS = "pprofpy/collectors/probes/compiled/*.json"
PLATFORMS = "manylinux_2_17_{0}.manylinux2014_{0}.musllinux_1_1_{0}"
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
        folder, machine = Path(self.root) / FOLDER, os.environ.get("PPROFPY_WHEEL_FOR", "")
        versions = [f"-D{name}={value}" for name, value in sampler_defines(Path(self.root) / VERSIONS).items()]
        for name, flags in LIBRARIES.items():
            (folder / name).unlink(missing_ok=True)
            if reason := compile_sampler(
                compiler_for(machine), folder / "sampler" / "sampler.c", folder / name, [*flags, *versions]
            ):
                if machine:
                    raise RuntimeError(reason)
                self.app.display_warning(f"{reason}: 'pprofpy heap' will only have the engine tracemalloc")
                return
            build_data["artifacts"].append(str(FOLDER / name))
        if machine and not list(Path(self.root).glob(PROGRAMS)):
            raise RuntimeError("there are no compiled programs for the kernel: scripts/compile_programs.py makes them")
        here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{PLATFORMS.format(machine) if machine else here}"


def sampler_defines(versions: Path) -> dict[str, str]:
    """What differs between versions of CPython. The package itself cannot be imported yet: it needs others."""
    defines: dict[str, str] = runpy.run_path(str(versions))["sampler_defines"]()
    return defines


def compiler_for(machine: str) -> str:
    """The compiler's name: this machine's own, or one for another kind of machine."""
    if machine in ("", platform.machine()):
        return os.environ.get("CC", "cc")
    return f"{machine}-linux-gnu-gcc"


def compile_sampler(name: str, source: Path, library: Path, flags: list[str]) -> str:
    """Compile; returns why that was not possible, or nothing."""
    compiler = shutil.which(name)
    if compiler is None:
        return f"there is no C compiler ({name})"
    temporary = library.with_suffix(f".{os.getpid()}")
    command = [compiler, *FLAGS, *flags, *STANDALONE, "-o", str(temporary), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        temporary.unlink(missing_ok=True)
        return f"the sampler does not compile: {done.stderr.strip()[-300:]}"
    temporary.rename(library)
    return ""
