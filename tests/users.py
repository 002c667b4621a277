"""Running pprofpy and programs as other users, in a mount namespace in which these can reach this Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import pprofpy
from pprofpy.system.privileges import Capability
from tests.conftest import PATIENCE_S

ROOT = Path(pprofpy.__file__).parent.parent
US, OTHER = 65534, 65533
COMMON = {"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
PLACES = {"PPROFPY_DIR": "profiles", "XDG_CACHE_HOME": "cache", "HOME": "."}

_NAMESPACE = """
set -e
closed=$1; shift
mkdir "$WORK/kept"
for folder; do mkdir -p "$WORK/kept$folder"; mount --bind "$folder" "$WORK/kept$folder"; done
if [ "$closed" ]; then mount -t tmpfs -o mode=755 tmpfs "$closed"; fi
for folder; do mkdir -p "$folder"; mount --bind "$WORK/kept$folder" "$folder"; done
mountpoint -q /sys/kernel/tracing || mount -t tracefs -o mode=700 tracefs /sys/kernel/tracing
[ "$(stat -c %a /sys/kernel/tracing)" = 700 ] || { echo "other users can read /sys/kernel/tracing" >&2; exit 1; }
echo ready
exec sleep infinity
"""


def closed_folder(path: Path) -> Path | None:
    """The first folder on the way to `path` that other users cannot enter."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)


class Users:
    """Runs programs as users without privileges, all in one mount namespace."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pprofpy-users-"))
        self.folder.chmod(0o755)
        for name in ("profiles", "cache"):
            (self.folder / name).mkdir()
            os.chown(self.folder / name, US, US)
        (self.folder / "cache" / "pprofpy").mkdir(0o755)
        os.chown(self.folder / "cache" / "pprofpy", US, US)
        needed = sorted({Path(sys.base_prefix), Path(sys.prefix), ROOT})
        closed = {found for path in needed if (found := closed_folder(path / "x"))}
        if len(closed) > 1:
            pytest.skip(f"several folders are closed to other users: {closed}")
        behind = [str(path) for path in needed if any(one in path.parents for one in closed)]
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _NAMESPACE, "sh"]
        self._keeper = subprocess.Popen(
            [*words, str(next(iter(closed), "")), *behind],
            env={**os.environ, "WORK": str(self.folder)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._started = [self._keeper]
        assert self._keeper.stdout
        assert self._keeper.stderr
        if self._keeper.stdout.readline() != "ready\n":
            reason = self._keeper.stderr.read().strip()
            self.close()
            pytest.skip(f"no mount namespace can be made here: {reason}")

    def _prefix(self, user: int, capabilities: frozenset[Capability]) -> list[str]:
        names = ",".join(f"+{one.name.lower()}" for one in sorted(capabilities)) or "-all"
        identity = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all," + names]
        sets = [f"--inh-caps=-all,{names}", f"--ambient-caps=-all,{names}"] if capabilities else ["--inh-caps=-all"]
        if not capabilities:
            identity.pop()
        return self.inside("setpriv", *identity, *sets, sys.executable)

    def start(self, user: int, *program: str) -> int:
        """Start a program that prints `ready`; returns its pid."""
        words = [*self._prefix(user, frozenset()), *program]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/")
        self._started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process.pid

    def pprofpy(self, capabilities: frozenset[Capability], *words: str) -> subprocess.CompletedProcess[str]:
        """Run pprofpy as a user, with these capabilities and no others."""
        places = {name: str(self.folder / place) for name, place in PLACES.items()}
        return self.run([*self._prefix(US, capabilities), "-m", "pprofpy", *words], places)

    def run(self, command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with these variables and those that all have."""
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **COMMON, **variables}, cwd=ROOT,
            timeout=PATIENCE_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def inside(self, *command: str) -> list[str]:
        """The words of a command that is to run as root, in the namespace."""
        return ["nsenter", f"--target={self._keeper.pid}", "--mount", *command]

    def close(self) -> None:
        for process in self._started:
            process.kill()
            with process:
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def other_users() -> Iterator[Users]:
    """For a fixture: the users, ended after the test. Skips where there cannot be any."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become other users with some capabilities")
    for program in ("setpriv", "unshare", "nsenter"):
        if not shutil.which(program):
            pytest.skip(f"there is no {program} here: apt-get install util-linux")
    found = Users()
    yield found
    found.close()
