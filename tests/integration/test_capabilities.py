"""Least privilege: each command works with the capabilities that docs/security.md names, and says which one is missing.

pprofpy and its targets run as users without any privilege of their own, in a mount namespace in which these users can
reach this Python, wherever it is installed, and in which the kernel's tracing files are mounted for root only.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pprofpy
from pprofpy.system.privileges import NEEDED, Capability, in_words
from tests.conftest import PROGRAMS

ROOT = Path(pprofpy.__file__).parent.parent
US, OTHER = 65534, 65533
ROW = re.compile(r"^\| `pprofpy (?P<command>[^`]+)` \| (?P<own>[^|]+) \| (?P<others>[^|]+) \|$", re.MULTILINE)

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
        return ["nsenter", f"--target={self._keeper.pid}", "--mount", "setpriv", *identity, *sets, sys.executable]

    def start(self, user: int, program: Path) -> int:
        """Start a program that prints `ready`; returns its pid."""
        words = [*self._prefix(user, frozenset()), str(program)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd="/")
        self._started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        return process.pid

    def pprofpy(self, capabilities: frozenset[Capability], *words: str) -> subprocess.CompletedProcess[str]:
        """Run pprofpy with these capabilities and no others."""
        environment = {
            **os.environ, "PPROFPY_DIR": str(self.folder / "profiles"), "XDG_CACHE_HOME": str(self.folder / "cache"),
            "HOME": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1",
        }  # fmt: skip
        command = [*self._prefix(US, capabilities), "-m", "pprofpy", *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT, timeout=120,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def close(self) -> None:
        for process in self._started:
            process.kill()
            with process:
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become other users with some capabilities")
    for program in ("setpriv", "unshare", "nsenter"):
        if not shutil.which(program):
            pytest.skip(f"there is no {program} here: apt-get install util-linux")
    found = Users()
    yield found
    found.close()


@pytest.fixture(scope="module")
def ours(users: Users) -> int:
    return users.start(US, PROGRAMS / "burn.py")


@pytest.fixture(scope="module")
def others(users: Users) -> int:
    return users.start(OTHER, PROGRAMS / "burn.py")


def words_of(command: str, pid: int) -> list[str]:
    """A short recording."""
    length = ["--seconds" if command.startswith("trace") else "-d", "0.3"]
    return [*command.split(), "--pid", str(pid), *length]


COMMANDS = [
    pytest.param(name, marks=[] if name.startswith("heap") or "py-spy" in name else pytest.mark.ebpf) for name in NEEDED
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_of_ones_own_takes_these_capabilities_and_each_of_them(command: str, users: Users, ours: int) -> None:
    own, _ = NEEDED[command]

    check(users, command, ours, own, own)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_process_of_another_user_takes_these_capabilities_and_each_of_them(
    command: str, users: Users, others: int
) -> None:
    own, more = NEEDED[command]

    check(users, command, others, own | more, more - own)


def check(users: Users, command: str, pid: int, needed: frozenset[Capability], each: frozenset[Capability]) -> None:
    """It works with all, and without one of `each` it names that. What one's own process takes, another's takes too."""
    done = users.pprofpy(needed, *words_of(command, pid))
    assert done.returncode == 0, done.stderr

    for missing in sorted(each):
        refused = users.pprofpy(needed - {missing}, *words_of(command, pid))
        assert refused.returncode == 4, f"without {missing}: {refused.stdout}{refused.stderr}"
        assert str(missing) in refused.stderr


@cache
def checks_of_doctor(users: Users, capabilities: frozenset[Capability]) -> list[dict[str, str]]:
    """What doctor finds with these capabilities; most commands need the same ones."""
    checks: list[dict[str, str]] = json.loads(users.pprofpy(capabilities, "doctor", "--json").stdout)["checks"]
    return checks


@pytest.mark.parametrize("command", NEEDED)
def test_doctor_names_the_missing_capability_and_the_command(command: str, users: Users) -> None:
    own, more = NEEDED[command]
    needed = own | more

    def grants(capabilities: frozenset[Capability]) -> list[str]:
        """What doctor says to grant for this command."""
        checks = checks_of_doctor(users, capabilities)
        remedy = next(check["remedy"] for check in checks if check["topic"] == "other users")
        parts = [part.removeprefix("grant ").split(" for: ") for part in remedy.split("; ") if part]
        return [granted for granted, commands in parts if command in commands.split(", ")]

    assert grants(needed) == []
    for missing in needed:
        assert grants(needed - {missing}) == [str(missing)]


@pytest.mark.ebpf
@pytest.mark.parametrize("command", ["off-cpu", "sched-latency", "trace -s"])
def test_the_whole_system_takes_no_more_than_the_probes(command: str, users: Users) -> None:
    length = ["--seconds" if command.startswith("trace") else "-d", "0.3"]

    done = users.pprofpy(NEEDED["off-cpu"][0], *command.split(), *length)

    assert done.returncode == 0, done.stderr


def test_the_table_in_the_docs_is_this_one() -> None:
    def cell(capabilities: frozenset[Capability]) -> str:
        return in_words(capabilities) if capabilities else "none"

    rows = [match.groups() for match in ROW.finditer((ROOT / "docs" / "security.md").read_text())]

    assert rows == [(name, cell(own), cell(others)) for name, (own, others) in NEEDED.items()]
