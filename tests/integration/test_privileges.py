"""pprofpy gives up what it does not need, for good, and what it starts inherits nothing that is not meant for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pprofpy.collectors.unwind.demangle import readable
from pprofpy.system.privileges import FILES, PY_SPY, READING, RECORDING, Capability
from tests.conftest import PROGRAMS, CommandLine, Start, beside_others, wait_until

INHERITANCE = PROGRAMS / "inheritance.py"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have privileges that can be given up")

RECORDERS = [
    pytest.param(("cpu", "--engine", "bpf"), marks=beside_others),
    pytest.param(("gil",), marks=beside_others),
    pytest.param(("trace", "-e", "sched:*"), marks=beside_others),
    pytest.param(("cpu", "--engine", "py-spy")),
    pytest.param(("heap", "--engine", "tracemalloc")),
]


def bits(capabilities: frozenset[Capability]) -> int:
    return sum(1 << one for one in capabilities)


def threads_of(pid: int) -> list[dict[str, str]]:
    """The status of each thread: the kernel keeps privileges by thread."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return [dict(re.findall(r"^(\w+):\t(.*)$", text, re.MULTILINE)) for text in texts]


def has_given_up(pid: int) -> bool:
    threads = threads_of(pid)
    return bool(threads) and all(thread["NoNewPrivs"] == "1" for thread in threads)


def children_of(pid: int) -> list[int]:
    text = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(word) for word in text.split()]


@pytest.fixture
def recording(cli: CommandLine, start: Start, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """A recording of a program of which each finds something, for as long as the test takes."""
    working = start(sys.executable, str(PROGRAMS / "show.py"))
    process = cli.start(*request.param, "--pid", str(working.pid), "-d", "600")
    yield process
    process.send_signal(signal.SIGINT)
    try:
        assert process.communicate(timeout=60)
        assert process.returncode in (0, 130)  # it may not have recorded anything yet
    finally:
        process.kill()


@needs_root
@pytest.mark.parametrize("recording", RECORDERS, indirect=True, ids=lambda words: "-".join(words))
def test_a_recording_keeps_only_the_documented_capabilities_in_every_thread(recording: subprocess.Popen[str]) -> None:
    wait_until(lambda: has_given_up(recording.pid), "it has given up privileges")

    for thread in threads_of(recording.pid):
        kept = {name: int(thread[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert {name: mask & ~bits(RECORDING) for name, mask in kept.items()} == dict.fromkeys(kept, 0)
    limits = Path(f"/proc/{recording.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
    assert re.search(r"^Max address space +\d+ ", limits, re.MULTILINE)


@needs_root
@pytest.mark.parametrize("recording", [("cpu", "--engine", "py-spy")], indirect=True, ids=["cpu"])
def test_py_spy_keeps_less_and_inherits_only_what_it_writes_to(recording: subprocess.Popen[str]) -> None:
    def spies() -> list[int]:
        lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in children_of(recording.pid)}
        return [pid for pid, words in lines.items() if words[0].endswith(b"py-spy") and words[1:2] == [b"record"]]

    wait_until(lambda: bool(spies()), "py-spy runs")
    spy = spies()[0]

    for thread in threads_of(spy):
        assert int(thread["CapPrm"], 16) & ~bits(PY_SPY) == int(thread["CapEff"], 16) & ~bits(PY_SPY) == 0
        assert thread["NoNewPrivs"] == "1"
    files = {int(path.name): str(path.readlink()) for path in Path(f"/proc/{spy}/fd").iterdir()}
    ours = {number: name for number, name in files.items() if "pprofpy" in name and number > 2}
    assert [name.partition(" ")[0] for name in ours.values()] == ["/memfd:pprofpy-profile"]
    assert not [name for name in files.values() if "bpf" in name or "perf_event" in name]


def test_the_reader_of_native_names_has_no_privilege() -> None:
    assert readable("_Z12unprivilegedii") == "unprivileged(int, int)"

    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children_of(os.getpid())}
    readers = [pid for pid, line in lines.items() if b"__cxa_demangle" in line]

    for thread in [thread for reader in readers for thread in threads_of(reader)]:
        assert {int(thread[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        assert thread["NoNewPrivs"] == "1"
    assert len(readers) == 1


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("cpu", "--engine", "bpf"), marks=beside_others),
        pytest.param(("off-cpu",), marks=beside_others),
        ("cpu", "--engine", "py-spy"),
        ("heap", "--engine", "tracemalloc"),
    ],
    ids=lambda words: "-".join(words),
)
def test_a_command_inherits_what_the_user_gave_us_and_nothing_of_ours(
    words: tuple[str, ...], cli: CommandLine, tmp_path: Path
) -> None:
    command = (sys.executable, str(INHERITANCE))
    ours, plain = tmp_path / "ours.json", tmp_path / "plain.json"
    alone = subprocess.Popen(
        [*command, str(plain)], env=cli.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    with alone:
        assert alone.stdout
        assert alone.stdout.readline() == b"ready\n"
        expected = json.loads(plain.read_text())
        plain.unlink()

    recording = cli.start(*words, "-d", "0.5", "--", *command, str(ours))
    try:
        assert recording.stderr
        wait_until(lambda: recording.poll() is not None or has_given_up(recording.pid), "the recording runs")
        wait_until(lambda: recording.poll() is not None or bool(ours.exists() and ours.read_text()), "it has begun")
        inherited = json.loads(ours.read_text())
        assert any("recording done" in line for line in recording.stderr)
    finally:
        ours.unlink(missing_ok=True)
        _, said = recording.communicate(timeout=60)
    assert recording.returncode == 0, said

    assert inherited == expected
    assert inherited["descriptors"] == []


@needs_root
@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("top",), READING),
        (("export", "-o", "/dev/null", "-f", "collapsed"), FILES),
    ],
)
def test_a_view_gives_up_all_but_the_files_of_the_user_before_it_reads(
    words: tuple[str, ...], kept: frozenset[Capability], cli: CommandLine, tmp_path: Path
) -> None:
    """It waits for its input, a pipe, when it has given up."""
    pipe = tmp_path / "profile"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [sys.executable, "-m", "pprofpy", *words, "-"], env=cli.environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as view:  # fmt: skip
        wait_until(lambda: has_given_up(view.pid), "it has given up privileges")
        masks = {int(thread[name], 16) for thread in threads_of(view.pid) for name in ("CapPrm", "CapEff", "CapBnd")}
        _, said = view.communicate(b"main;work 7\n")

    assert masks
    assert all(mask & ~bits(kept) == 0 for mask in masks)
    assert view.returncode == 0, said


def test_a_program_that_calls_the_command_line_keeps_what_it_has(cli: CommandLine, tmp_path: Path) -> None:
    profile = tmp_path / "some.collapsed"
    profile.write_text("main;work 7\n")
    code = (
        "from pathlib import Path\n"
        "from pprofpy.cli.main import run\n"
        "before = Path('/proc/self/status').read_text()\n"
        f"assert run(['top', {str(profile)!r}]) == 0\n"
        "after = Path('/proc/self/status').read_text()\n"
        "kept = [line for line in before.splitlines() if line.startswith(('Cap', 'NoNew'))]\n"
        "assert kept == [line for line in after.splitlines() if line.startswith(('Cap', 'NoNew'))] != []\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_help_loads_no_code_for_privileges() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pprofpy", "--help"], capture_output=True, text=True, check=True
    )

    assert "pprofpy.cli.main" in done.stderr
    assert "pprofpy.system.privileges" not in done.stderr
