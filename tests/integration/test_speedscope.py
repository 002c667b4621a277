"""What speedscope itself, run in a make-believe browser, understands of our export."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pprofpy.formats import collapsed, speedscope
from pprofpy.model.profile import Label, LabelSet, Profile
from tests.stacks import PERIOD_NS, profile_of

PACKAGES = ("speedscope@1.25.0", "jsdom@26")
SCRIPT = Path(__file__).with_name("speedscope_import.js")
PATIENCE_S = 300

STACKS: dict[tuple[str, LabelSet], int] = {
    ("main > serve > parse", (Label("thread", "MainThread"), Label("tid", 1))): 3,
    ("main > serve", (Label("thread", "MainThread"), Label("tid", 1))): 1,
    ("run > work", (Label("thread", "worker <1>"), Label("tid", 2))): 10,
    ("run > fib > fib > fib", (Label("thread", "worker <1>"), Label("tid", 2))): 5,
    ("run > ünïcode;\n&", (Label("thread", "pool"), Label("tid", 3))): 2,
    ("run", (Label("thread", "pool"), Label("tid", 4))): 7,
}
PROFILE = profile_of(STACKS)


@pytest.fixture(scope="session")
def packages() -> Path:
    """A folder with speedscope and a DOM for it, kept between runs; skips where npm cannot provide them."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pprofpy-tests" / "-".join(PACKAGES)
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (cache / "complete").exists():
            command = ["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund", *PACKAGES]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
            if done.returncode:
                pytest.skip(f"npm cannot install speedscope here: {done.stderr.strip()[-200:]}")
            (cache / "complete").touch()
    return cache


def imported(packages: Path, path: Path) -> dict[str, Any]:
    """What speedscope makes of a file."""
    done = subprocess.run(
        ["node", str(SCRIPT), str(packages), str(path)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def exported(profile: Profile, tmp_path: Path) -> Path:
    path = tmp_path / "export.speedscope.json"
    path.write_bytes(speedscope.write(profile))
    return path


def test_each_thread_is_a_profile_with_its_own_total(packages: Path, tmp_path: Path) -> None:
    group = imported(packages, exported(PROFILE, tmp_path))

    assert {profile["name"]: profile["total"] for profile in group["profiles"]} == {
        "MainThread": 4 * PERIOD_NS,
        "worker <1>": 15 * PERIOD_NS,
        "pool (tid 3)": 2 * PERIOD_NS,
        "pool (tid 4)": 7 * PERIOD_NS,
    }
    assert {profile["unit"] for profile in group["profiles"]} == {"nanoseconds"}


def test_functions_have_our_flat_and_cum(packages: Path, tmp_path: Path) -> None:
    group = imported(packages, exported(PROFILE, tmp_path))

    frames = {profile["name"]: profile["frames"] for profile in group["profiles"]}
    assert frames["MainThread"] == {
        "main": [0, 4 * PERIOD_NS],
        "serve": [PERIOD_NS, 4 * PERIOD_NS],
        "parse": [3 * PERIOD_NS, 3 * PERIOD_NS],
    }
    assert frames["worker <1>"]["fib"] == [5 * PERIOD_NS, 5 * PERIOD_NS]
    assert "ünïcode;\n&" in frames["pool (tid 3)"]


def test_collapsed_stacks_are_read_too(packages: Path, tmp_path: Path) -> None:
    path = tmp_path / "export.collapsed"
    path.write_bytes(collapsed.write(PROFILE))

    (profile,) = imported(packages, path)["profiles"]

    assert profile["total"] == 28
    assert profile["frames"]["fib"] == [5, 5]
    assert profile["frames"]["ünïcode: &"] == [2, 2]
