"""A view is held by the kernel to what it does: even with a hole in a reader it could write only where it was told."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pprofpy.arch import is_known
from pprofpy.cli import confinement, list_recordings
from pprofpy.formats import eventlog, folder
from pprofpy.formats.recording import write
from pprofpy.model.profile import Collection
from pprofpy.model.recording import Recording
from pprofpy.system import landlock
from tests import events
from tests.conftest import PROGRAMS, CommandLine, wait_until
from tests.stacks import profile_of

CONFINED = PROGRAMS / "confined.py"
NOBODY = 65534

CHANGES = ("create", "write", "write-and-read", "truncate", "rename", "remove", "mkdir", "symlink", "link", "memory")
ALLOWED = ("read", "out-create", "out-rename", "out-link", "out-remove", "devnull", "thread", "memory-file", "print")
CALLS = ("execute", "execute-x32", "inet", "unix", "ptrace", "read-other", "kill", "bpf", "chmod", "chown", "utime")

needs_seccomp = pytest.mark.skipif(not is_known(), reason="system calls are refused by number on x86-64 only")
as_users = pytest.mark.parametrize(
    "user",
    [0, NOBODY] if os.geteuid() == 0 else [os.geteuid()],
    ids=lambda uid: "root" if not uid else "user",
)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "some.pb.gz"
    path.write_bytes(write(Recording("cpu", profile_of({"main > work": 7}))))
    return path


def attempts(user: int, *words: str) -> dict[str, str]:
    """What a process can do that is confined like a view with -o FOLDER/out/x: attempt -> "done" or the error."""
    with tempfile.TemporaryDirectory(prefix="pprofpy-confined-") as place:
        folder = Path(place)
        out, victim = folder / "out", folder / "victim"
        out.mkdir()
        victim.write_bytes(b"kept")
        for path in (folder, out, victim):
            os.chown(path, user, -1)
        done = subprocess.run(
            [sys.executable, str(CONFINED), str(user), str(out / "x"), str(victim), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert words or victim.read_bytes() == b"kept"
    found: dict[str, str] = json.loads(done.stdout)
    return found


def of(names: tuple[str, ...], found: dict[str, str]) -> dict[str, str]:
    return {name: found[name] for name in names}


@as_users
def test_a_view_does_what_it_must_and_nothing_else(user: int) -> None:
    found = attempts(user)

    assert of(ALLOWED, found) == dict.fromkeys(ALLOWED, "done")
    if is_known():
        assert of(CALLS, found) == dict.fromkeys(CALLS, "PermissionError")
    if landlock.version():
        assert of(CHANGES, found) == dict.fromkeys(CHANGES, "PermissionError")


def test_all_of_that_can_be_done_without() -> None:
    """What is tried would work: it is not refused for another reason."""
    found = attempts(os.geteuid(), "free")

    possible = (*CHANGES, *ALLOWED, *CALLS)
    assert {name for name, came in of(possible, found).items() if came != "done"} <= {"execute-x32", "bpf"}


def run(words: list[str], cli: CommandLine, folder: Path, **how: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "pprofpy", *words], env={**cli.environment, "PYTHONPATH": str(Path.cwd())}, cwd=folder,
        capture_output=True, check=False, **how,
    )  # fmt: skip


def test_views_write_where_they_are_told(profile: Path, cli: CommandLine, tmp_path: Path) -> None:
    elsewhere, here = tmp_path / "else" / "where", tmp_path / "here"
    elsewhere.mkdir(parents=True)
    here.mkdir()

    for words, made in (
        (["flamegraph", str(profile)], here / "flamegraph.svg"),
        (["flamegraph", str(profile), "-o", str(elsewhere / "x.svg")], elsewhere / "x.svg"),
        (["flamegraph", str(profile), "-o", str(elsewhere / "x.svg"), "--title", "again"], elsewhere / "x.svg"),
        (["export", str(profile), "-o", "../else/where/x.json"], elsewhere / "x.json"),
    ):
        done = run(words, cli, here)
        assert done.returncode == 0, done.stderr
        assert made.stat().st_size > 100
    assert b"again" in (elsewhere / "x.svg").read_bytes()
    assert sorted(one.name for one in elsewhere.iterdir()) == ["x.json", "x.svg"]


def test_views_write_to_streams_pipes_and_devices(profile: Path, cli: CommandLine, tmp_path: Path) -> None:
    words = ["export", str(profile), "-f", "collapsed", "-o"]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    streamed = run([*words, "/dev/stdout"], cli, tmp_path)
    dropped = run([*words, "/dev/null"], cli, tmp_path)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        piped = run([*words, str(pipe)], cli, tmp_path)
        said = reader.communicate()[0]

    assert (streamed.returncode, dropped.returncode, piped.returncode) == (0, 0, 0), piped.stderr
    assert b"main;work 7" in streamed.stdout
    assert said == streamed.stdout


def test_views_read_the_profile_folder_and_listing_prunes_it(profile: Path, cli: CommandLine, tmp_path: Path) -> None:
    latest = cli.folder / "cpu-shop-1.pb.gz"
    latest.parent.mkdir(parents=True, exist_ok=True)
    latest.write_bytes(profile.read_bytes())

    for words in (["top"], ["list-recordings"]):
        done = run(words, cli, tmp_path)
        assert done.returncode == 0, done.stderr
        assert (b"shop" if words[0] == "list-recordings" else b"work") in done.stdout

    pruned = run(["list-recordings", "--prune", "--keep", "0"], cli, tmp_path)

    assert b"1 of 1 recording deleted" in pruned.stderr
    assert not latest.exists()


def test_a_reader_that_goes_away_is_no_error(profile: Path, cli: CommandLine) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [sys.executable, "-m", "pprofpy", "top", str(profile)],
        env=cli.environment, stdout=writing, stderr=subprocess.PIPE,
    ) as view:  # fmt: skip
        os.close(writing)
        said = view.communicate()[1]

    assert (view.returncode, said) == (0, b"")


def event_log() -> bytes:
    stream = io.BytesIO()
    writer = eventlog.EventWriter(stream, events.LOG)
    writer.add(events.batch([events.switch(5_000, 10, 11, 1), events.waking(7_000, 11, 10)], []))
    writer.end(10_000, Collection("bpf"))
    return stream.getvalue()


@needs_seccomp
@pytest.mark.parametrize(
    "words",
    [
        ("top",),  # it and the others load what they show in one place
        ("show",),
        ("timeline",),
        ("trace", "--input"),
    ],
    ids=lambda words: words[0],
)
def test_each_view_is_confined_before_it_reads(words: tuple[str, ...], cli: CommandLine, tmp_path: Path) -> None:
    """It waits for its input, a pipe, when it is confined."""
    data = event_log() if words[0] in ("timeline", "trace") else b"main;work 7\n"
    with subprocess.Popen(
        [sys.executable, "-m", "pprofpy", *words, "-"], env=cli.environment, cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as view:  # fmt: skip
        status = Path(f"/proc/{view.pid}/status")
        wait_until(lambda: view.poll() is not None or "\nSeccomp:\t2\n" in status.read_text(), "it is confined")
        said = view.communicate(data)

    assert view.returncode == 0, said


@pytest.mark.parametrize("words", [[], ["--prune", "--keep", "1M"]], ids=["list", "prune"])
def test_listing_is_confined_before_it_reads(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[Any] = []
    monkeypatch.setattr(confinement, "before_reading", lambda **how: happened.append(how))

    def recordings() -> list[folder.Entry]:
        happened.append("read")
        return []

    monkeypatch.setattr(folder, "recordings", recordings)

    list_recordings.command.main([*words], standalone_mode=False)

    assert happened == [{"prunes": bool(words)}, "read"]
