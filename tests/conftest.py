"""Shared fixtures: the command line as a process of its own, and programs to point it at."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pprofpy.collectors.cpython.versions import FREE_THREADED, VERSIONS, Version, spelled, version_of
from pprofpy.collectors.kernel import require
from pprofpy.errors import NotPossibleError

PROGRAMS = Path(__file__).parent / "programs"
BURN_AND_REST = (str(PROGRAMS / "burn.py"), "3600", "0.005")
"""Burns half of the time. That is enough to be found by name, and leaves a CPU to the tests beside it."""
_LONGEST_NAME = 100
PATIENCE_S = 120
"""Only ends what hangs; no test measures time by it."""

os.environ.pop("SUDO_UID", None)  # recordings would be the caller's, wherever a test wants them

Start = Callable[..., subprocess.Popen[str]]

beside_others = pytest.mark.ebpf(needs="probes")
"""For a test that loads probes, and holds whatever other probes come and go."""

# How properties are tried out: no deadline, since a busy machine is no fault, and no memory between runs.
settings.register_profile("patient", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@dataclass(frozen=True)
class CommandLine:
    """Runs `python -m pprofpy` with a profile folder of its own."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PPROFPY_DIR": str(self.folder), "COLUMNS": "200", "NO_COLOR": "1"}

    def __call__(self, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        command = [*prefix, sys.executable, "-m", "pprofpy", *words]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environment, timeout=PATIENCE_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start, to be waited for by the test."""
        command = [sys.executable, "-m", "pprofpy", *words]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def recordings(self) -> list[Path]:
        return sorted(self.folder.glob("*")) if self.folder.exists() else []


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "profiles")


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program that prints `ready`, wait for that, end it after the test."""
    started: list[subprocess.Popen[str]] = []

    def start_program(*words: str, **options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process  # type: ignore[no-any-return]

    yield start_program
    for process in started:
        with suppress(OSError):
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


@pytest.fixture
def native_library(tmp_path: Path) -> Path:
    """tests/programs/native.c, compiled without frame pointers."""
    return compiled_library(tmp_path, "native")


def compiled_library(folder: Path, name: str) -> Path:
    """Compile one of tests/programs/*.c as a library, without frame pointers."""
    path = folder / f"lib{name}.so"
    flags = ["-O2", "-fomit-frame-pointer", "-shared", "-fPIC", "-pthread"]
    subprocess.run(["cc", *flags, "-o", str(path), str(PROGRAMS / f"{name}.c")], check=True)
    return path


def pytest_configure() -> None:
    """Take Ctrl-C even where a shell has started the tests in the background, and SIGHUP where nohup has.

    What the tests start would ignore them, too.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test by the length of a value that is long: pytest would take all of it, and each worker tells each name.

    Of some that is megabytes.
    """
    is_long = isinstance(val, str | bytes) and len(val) > _LONGEST_NAME
    return f"{argname} of {len(val)}" if is_long else None  # type: ignore[arg-type]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need the kernel's probes for themselves run in one worker; without probes, none of theirs runs."""
    try:
        require()
        reason = ""
    except NotPossibleError as error:
        reason = error.message
    for item in items:
        if marker := item.get_closest_marker("ebpf"):
            if needs(marker) == "silence":
                item.add_marker(pytest.mark.xdist_group("ebpf"))
            item.add_marker(pytest.mark.skipif(bool(reason), reason=reason or "eBPF works"))
    items.sort(key=loads_probes_among_others)  # last, when no group of those that need silence is left


def needs(marker: pytest.Mark) -> str:
    """What a test marked `ebpf` needs: "silence" (no other's probes come or go), "probes", or only the "compiler"."""
    found = marker.kwargs.get("needs", "silence")
    assert found in ("silence", "probes", "compiler")
    return str(found)


def loads_probes_among_others(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("ebpf")
    return marker is not None and needs(marker) == "probes"


@pytest.fixture(autouse=True)
def _probes_apart(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Probes that come and go make the kernel lose events of others: who counts events, of all workers, is alone."""
    marker = request.node.get_closest_marker("ebpf")
    if not marker or needs(marker) == "compiler":
        yield
        return
    folder = tmp_path_factory.getbasetemp().parent  # that of all workers
    with (folder / "probes-next.lock").open("w") as following, (folder / "probes.lock").open("w") as probes:
        fcntl.flock(following, fcntl.LOCK_EX)  # who waits is the next one: nobody waits for ever
        fcntl.flock(probes, fcntl.LOCK_EX if needs(marker) == "silence" else fcntl.LOCK_SH)
        fcntl.flock(following, fcntl.LOCK_UN)
        yield


def rounds_until_right(measure: Callable[[], list[str]], rounds: int = 10) -> None:
    """Measure until nothing is wrong. A busy machine spoils a round now and then; an error of ours spoils them all.

    Args:
        measure: Returns what is wrong, each in words.
        rounds: So many at most.
    """
    wrong: list[str] = []
    for _ in range(rounds):
        wrong = measure()
        if not wrong:
            return
    pytest.fail(f"wrong in each of {rounds} rounds; in the last: " + "; ".join(wrong))


def stolen_ns() -> int:
    """Time that the machine's host kept for others, of all CPUs: CPU clocks stand still meanwhile, others do not."""
    ticks = int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[8])
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


PYTHONS = tuple(map(spelled, VERSIONS))
"""Every version that pprofpy knows, as `interpreter` takes it."""

FREE_PYTHONS = tuple(f"{spelled(number)}t" for number in FREE_THREADED)
"""Those that have no interpreter lock."""


def facts_of(version: str) -> Version:
    """What pprofpy knows of such a Python."""
    major, minor = version.removesuffix("t").split(".")
    return version_of((int(major), int(minor)), is_free_threaded=version.endswith("t"))


def interpreter(version: str) -> str:
    """The path of a Python of this minor version, "3.13t" for a free-threaded one; skips the test where there is none.

    It may be pyenv's, in PATH, in a folder named by PPROFPY_TEST_PYTHONS (several: as in PATH), or be what
    scripts/fetch_python.sh has fetched.
    """
    if version == "system":
        found = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else None
    else:
        root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
        candidates = sorted(root.glob(f"versions/{version}.*/bin/python"))
        found = str(candidates[-1]) if candidates else shutil.which(f"python{version}") or _kept(version)
    if found is None:
        pytest.skip(f"there is no Python {version} here")
    return found


def with_package(version: str, package: str) -> dict[str, str]:
    """An environment in which a Python of this version has a package of PyPI's; skips the test where there is none."""
    script = Path(__file__).parents[1] / "scripts" / "fetch_package.sh"
    fetched = subprocess.run([script, version, package], capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"{package} for Python {version} cannot be fetched: {fetched.stderr.strip()}")
    return os.environ | {"PYTHONPATH": fetched.stdout.strip()}


def installed_versions(versions: Iterable[str]) -> list[str]:
    """Those of these versions that are here; fails if none is: what is tried on each of them would be tried on none."""
    found = []
    for version in versions:
        with suppress(pytest.skip.Exception):
            interpreter(version)
            found.append(version)
    assert found, "there is none of the Pythons that this test runs on"
    return found


def _kept(version: str) -> str | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pprofpy-tests"
    named = os.environ.get("PPROFPY_TEST_PYTHONS", "").split(":")
    for folder in [*(Path(name) for name in named if name), cache]:
        for pattern in ("", "bin/", "*/bin/", "*/usr/bin/"):
            found = [path for path in folder.glob(f"{pattern}python{version}") if path.is_file()]
            if found:
                return str(max(found))
    return None


def comm(pid: int) -> str:
    """The kernel's name for a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    except OSError:
        return ""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)
