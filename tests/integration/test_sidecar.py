"""In a container beside the application's: a pid namespace shared with it, and none of its files."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pprofpy.formats.files import read_profile
from pprofpy.target import descendants_of, procfs
from tests.conftest import PROGRAMS, CommandLine, Start, beside_others, interpreter

NAMESPACES = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
IMAGE = Path(os.environ.get("PPROFPY_IMAGE", Path(__file__).parents[2] / "build" / "image"))

Sidecar = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def application(start: Start, tmp_path: Path) -> int:
    """An application in a pod: with its own root folder, Python and pid namespace. Its pid, as the host numbers it."""
    if subprocess.run([*NAMESPACES, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not make namespaces here")
    root = tmp_path / "root"
    (root / "srv").mkdir(parents=True)
    shutil.copy(PROGRAMS / "tenant.py", root / "srv" / "tenant.py")
    python = Path(interpreter("3.12")).resolve()
    words = ("/opt/python/bin/" + python.name, "/srv/tenant.py")
    pod = start(*NAMESPACES, sys.executable, str(PROGRAMS / "pod.py"), str(root), str(python.parents[1]), *words)
    (found,) = (pid for pid in descendants_of(pod.pid) if procfs.command_line(pid) == words)
    return found


def beside(pid: int) -> tuple[str, ...]:
    """Words before a command that runs in a process's pid namespace, with our files and a /proc of its own."""
    return ("nsenter", f"--target={pid}", "--pid", "--", "unshare", "--mount", "--mount-proc", "--")


@pytest.fixture
def sidecar(application: int, cli: CommandLine) -> Sidecar:
    """Runs pprofpy beside the application."""
    return lambda *words: cli(*words, prefix=beside(application))


def inner(pid: int) -> str:
    return str(procfs.status(pid).inner_id)


@beside_others
def test_where_the_cpu_goes_is_seen_down_to_native_functions_and_source(
    application: int, sidecar: Sidecar, cli: CommandLine
) -> None:
    done = sidecar("cpu", "--pid", inner(application), "-d", "1", "--engine", "bpf", "--native", "-t")

    assert done.returncode == 0, done.stderr
    names = {function.name for function in read_profile(str(cli.recordings[0])).functions}
    assert {"tenant.burn", "tenant.compute"} <= names
    assert names & {"PyLong_FromLong", "_PyObject_Malloc", "_PyEval_EvalFrameDefault"}, names
    assert "burn" in done.stdout
    shown = cli("list", "compute")
    assert "for _ in range(20_000):" in shown.stdout, shown.stderr


@beside_others
def test_source_is_what_the_application_has_and_never_what_we_have(
    application: int, sidecar: Sidecar, cli: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "ours").write_text("def compute():\n    secret = 1\n" * 20)
    source = tmp_path / "root" / "srv" / "tenant.py"
    source.unlink()
    source.symlink_to(tmp_path / "ours")  # leads nowhere in the application's root

    done = sidecar("cpu", "--pid", inner(application), "-d", "1", "--engine", "bpf")

    assert done.returncode == 0, done.stderr
    shown = cli("list", "compute")
    assert "tenant.compute" in shown.stdout + shown.stderr
    assert "secret" not in shown.stdout + shown.stderr


@beside_others
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("off-cpu",), r"tenant\.doze"),
        (("gil",), r"tenant\.(?:compute|burn)"),
        (("sched-latency", "--stacks"), r"\bdoze\b"),
        (("events", "-e", "getppid"), r"tenant\.call"),
        (("heap",), r"tenant\.allocate"),
    ],
)
def test_every_command_sees_the_application(
    words: tuple[str, ...], expected: str, application: int, sidecar: Sidecar
) -> None:
    done = sidecar(*words, "--pid", inner(application), "-d", "1")

    assert done.returncode == 0, done.stderr
    assert re.search(expected, done.stdout), done.stdout


@beside_others
def test_calls_are_traced_with_our_numbers_and_their_stacks(application: int, sidecar: Sidecar) -> None:
    done = sidecar("trace", "--pid", inner(application), "-e", "getppid", "-d", "1", "--json", "--stacks")

    assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(calls) > 100
    assert {str(one["pid"]) for one in calls} == {inner(application)}
    assert "tenant.call" in json.dumps(calls[-1])


@beside_others
def test_without_a_target_it_is_the_pod_that_is_measured(application: int, sidecar: Sidecar, start: Start) -> None:
    for _ in range(os.cpu_count() or 1):
        start(sys.executable, str(PROGRAMS / "burn.py"))  # outside: it takes CPUs from those inside

    done = sidecar("sched-latency", "-d", "2", "--json", "--threshold", "1ms")

    assert done.returncode == 0, done.stderr
    assert "recording all processes of this pid namespace" in done.stderr
    found = json.loads(done.stdout)
    pids = {row["pid"] for row in found["rows"]}
    assert int(inner(application)) in pids
    assert len(pids) < 10, "the pod's: its first process, the application, and we"
    ran = {one["name"] for wait in found["long_waits"] for one in wait["ran"]}
    assert any("outside of our pid namespace" in name for name in ran), ran


@beside_others
def test_the_times_of_threads_that_end_are_whole(application: int, sidecar: Sidecar) -> None:
    """The last switch of a thread often comes when it has no number in any namespace any more: it must not live on.

    Here a hundred threads live one after the other.
    """
    done = sidecar("cpu", "--pid", inner(application), "-d", "2", "--engine", "bpf", "--idle", "--json", "-t")

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["threads"]
    brief = [row["value"] for row in rows if row["thread"] not in LASTING]
    assert len(brief) > 20
    assert 0.5e9 < sum(brief) < 3e9, "one of them at a time"


LASTING = {"MainThread", "burn", "doze", "call", "allocate", "start_brief"}


def test_in_a_user_namespace_the_reason_is_told(cli: CommandLine) -> None:
    inside = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not make user namespaces here")

    done = cli("off-cpu", "-d", "1", prefix=inside)
    told = cli("doctor", prefix=inside).stdout

    assert (done.returncode, done.stdout) == (4, "")
    for said in (done.stderr, told):
        assert "user namespace of our own" in said
        assert "hostUsers: true" in said


@pytest.mark.parametrize("command", [("cpu", "--pid", "1"), ("heap", "--pid", "1"), ("off-cpu",)], ids=" ".join)
def test_where_proc_is_another_namespace_s_nothing_is_taken_for_granted(
    command: tuple[str, ...], cli: CommandLine
) -> None:
    inside = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("may not make namespaces here")

    done = cli(*command, "-d", "1", prefix=inside)

    assert (done.returncode, done.stdout) == (4, "")
    assert "shows another pid namespace than ours" in done.stderr
    assert "mount -t proc" in done.stderr


@beside_others
def test_the_image_has_all_that_it_takes(application: int, tmp_path: Path) -> None:
    """What the Dockerfile installs, as a root folder: `make image` makes it."""
    if not (IMAGE / "usr" / "local" / "bin" / "pprofpy").is_symlink():
        pytest.skip(f"{IMAGE} is no image: make wheel image")
    profiles = tmp_path / "profiles"
    profiles.mkdir(mode=0o700)
    inside = f"""
mount --rbind /sys {IMAGE}/sys
mount -t proc proc {IMAGE}/proc
mount --bind {profiles} {IMAGE}/profiles
exec chroot {IMAGE} env -i PATH=/usr/local/bin:/usr/bin:/bin PPROFPY_DIR=/profiles pprofpy "$@"
"""
    words = ("nsenter", f"--target={application}", "--pid", "--", "unshare", "--mount", "sh", "-euc", inside, "sh")

    for command, expected in (
        (("cpu", "--native", "--engine", "bpf"), "tenant.compute"),
        (("heap",), "tenant.allocate"),
    ):
        done = subprocess.run(
            [*words, *command, "--pid", inner(application), "-d", "1"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    assert len(list(profiles.iterdir())) == 2
