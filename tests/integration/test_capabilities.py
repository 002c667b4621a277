"""Least privilege: each command works with the capabilities that docs/security.md names, and says which one is missing.

pprofpy and its targets run as users without any privilege of their own, in a mount namespace in which these users can
reach this Python, wherever it is installed, and in which the kernel's tracing files are mounted for root only.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from functools import cache

import pytest

from pprofpy.system.privileges import NEEDED, Capability, in_words
from tests.conftest import PROGRAMS, beside_others
from tests.hostile.recorders import EVERYTHING
from tests.users import OTHER, ROOT, US, Users, other_users

ROW = re.compile(r"^\| `pprofpy (?P<command>[^`]+)` \| (?P<own>[^|]+) \| (?P<others>[^|]+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    yield from other_users()


@pytest.fixture
def ours(users: Users) -> Iterator[int]:
    yield from running(users, US)


@pytest.fixture
def others(users: Users) -> Iterator[int]:
    yield from running(users, OTHER)


def running(users: Users, user: int) -> Iterator[int]:
    """The pid of a program of which every recording finds something, for one test."""
    pid = users.start(user, str(PROGRAMS / "show.py"))
    yield pid
    os.kill(pid, signal.SIGKILL)


def words_of(command: str, pid: int) -> list[str]:
    """A short recording."""
    length = ["--seconds" if command.startswith("trace") else "-d", "0.3"]
    return [*command.split(), "--pid", str(pid), *length]


COMMANDS = [
    pytest.param(name, marks=[] if name.startswith("heap") or "py-spy" in name else beside_others) for name in NEEDED
]


OWN = COMMANDS if EVERYTHING else [*COMMANDS[::2], COMMANDS[1]]
OTHERS = COMMANDS if EVERYTHING else [*COMMANDS[1::2], COMMANDS[2]]
"""`make hostile` tries each command on both; py-spy and heap, which differ from the others, on both anyway."""


@pytest.mark.parametrize("command", OWN)
def test_a_process_of_ones_own_takes_these_capabilities_and_each_of_them(command: str, users: Users, ours: int) -> None:
    own, _ = NEEDED[command]

    check(users, command, ours, own, own)


@pytest.mark.parametrize("command", OTHERS)
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


@pytest.mark.xdist_group("doctor of users")  # in one process: what doctor finds is kept there
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


@beside_others
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
