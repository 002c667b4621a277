"""Ctrl-C and SIGTERM at any moment, closed and full standard streams: an exit status of ours, and never a traceback."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pprofpy
from pprofpy.formats import pprof
from tests.conftest import BURN_AND_REST, PATIENCE_S, CommandLine, Start, beside_others
from tests.stacks import profile_of

MOMENTS, MOST_MOMENTS = 12, 120
"""A machine that is busy now and idle then makes all of the first few miss."""

PYTHONS_OWN = re.compile(r'"(<frozen [\w.]+>|<string>|[^"]*/(lib/python[^"]*|site-packages/_\w+/[^"]*))"')
"""Files whose code Python itself runs before any of ours. Nobody can catch a Ctrl-C there."""


@pytest.fixture
def recording(tmp_path: Path) -> str:
    path = tmp_path / "cpu.pb.gz"
    path.write_bytes(pprof.write(profile_of({"main > work": 3})))
    return str(path)


PACKAGE = Path(pprofpy.__file__).parent
FRAME = re.compile(r'File ("[^"]+"), line (\d+), in (.+)')

UNGUARDED = {
    "pprofpy/__init__.py": 1_000,
    "pprofpy/__main__.py": next(
        number
        for number, line in enumerate((PACKAGE / "__main__.py").read_text().splitlines(), 1)
        if "_signal.signal(" in line
    ),
}
"""Of ours: up to this line nothing takes care of a Ctrl-C, and nothing that takes time may be imported."""


def complaints(stderr: str) -> list[str]:
    """Tracebacks in which our own code, or what it imports, had already begun."""
    if "Traceback" not in stderr:
        return []
    frames = [(path.strip('"'), int(line), name) for path, line, name in FRAME.findall(stderr)]
    is_ours = [any(path.endswith("/" + file) for file in UNGUARDED) for path, _, _ in frames]
    before = frames[: is_ours.index(True)] if True in is_ours else frames
    is_early = all(PYTHONS_OWN.fullmatch(f'"{path}"') and "pprofpy" not in path for path, _, _ in before)
    return [] if frames and is_early and all(map(is_unguarded, frames[len(before) :])) else [stderr]


def is_pythons_own(stderr: str) -> bool:
    """Is this the end of a Python that had not begun with ours, or only just? `complaints` looks at where it was."""
    return "Traceback" in stderr or re.match(r"Could not (import|access) runpy", stderr) is not None


def is_unguarded(frame: tuple[str, int, str]) -> bool:
    """Is it in the first lines of ours, or in what Python itself does for those?"""
    path, line, name = frame
    if path.startswith("<frozen "):
        return True
    return name == "<module>" and any(path.endswith("/" + file) and line <= last for file, last in UNGUARDED.items())


@pytest.mark.parametrize("file", ["__init__.py", "__main__.py"])
def test_nothing_that_takes_time_is_imported_before_ctrl_c_is_taken_care_of(file: str) -> None:
    lines = (PACKAGE / file).read_text().splitlines()[: UNGUARDED[f"pprofpy/{file}"]]
    imported = {line.split()[1] for line in lines if line.startswith(("import ", "from "))}

    assert imported <= {"_signal", "os", "sys"}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--help"], id="help"),
        pytest.param(["top", "RECORDING"], id="top"),
        pytest.param(["flamegraph", "RECORDING", "-o", "-"], id="flamegraph"),
        pytest.param(["doctor"], id="doctor", marks=beside_others),  # which tries the walk
    ],
)
def test_one_ctrl_c_at_any_moment_ends_a_view(words: list[str], cli: CommandLine, recording: str) -> None:
    words = [recording if word == "RECORDING" else word for word in words]
    usual_s, interrupted, number = usual_seconds(cli, words), 0, 0
    while number < MOMENTS or (not interrupted and number < MOST_MOMENTS):
        process = cli.start(*words)
        time.sleep(usual_s * 1.1 * (number % MOMENTS + number / MOST_MOMENTS) / MOMENTS)
        number += 1
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert complaints(stderr) == []
        if not is_pythons_own(stderr):
            assert process.returncode in (0, 4, 130, -signal.SIGINT), stderr  # the last: before Python was there
        interrupted += process.returncode == 130
    assert interrupted, "none came in time"


def usual_seconds(cli: CommandLine, words: list[str]) -> float:
    """How long a command takes now: the shortest of three runs, since the first one reads files from disk."""
    took_s = []
    for _ in range(3):
        began = time.monotonic()
        assert cli(*words).returncode in (0, 4)
        took_s.append(time.monotonic() - began)
    return min(took_s)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="cpu", marks=beside_others),
        pytest.param(["--engine", "py-spy"], id="py-spy"),
        pytest.param(["--idle"], id="idle", marks=beside_others),
    ],
)
def test_one_ctrl_c_at_any_moment_ends_a_recording(options: list[str], cli: CommandLine, start: Start) -> None:
    target = start(sys.executable, *BURN_AND_REST)
    interrupted = 0
    for number in range(6):
        process = cli.start("cpu", "--pid", str(target.pid), *options)
        time.sleep(0.05 + 0.35 * number)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE_S)
        assert complaints(stderr) == []
        if not is_pythons_own(stderr):
            assert process.returncode in (0, 130, -signal.SIGINT), stderr
        interrupted += process.returncode in (0, 130)
    assert interrupted
    assert target.poll() is None


def stuck(install: str) -> subprocess.Popen[str]:
    """A program that has asked for signals as a recording does, and then hangs where no handler of Python's can run."""
    program = (
        "import ctypes, signal\n"
        "from pprofpy.target.launch import interruptible\n"
        "with interruptible() as interruption:\n"
        "    print('ready', flush=True)\n"
        f"    {install}\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "hang",
    ["ctypes.PyDLL(None).pause()\n    while True: ctypes.PyDLL(None).pause()", "while True: interruption.wait(0.01)"],
    ids=["in C", "in Python"],
)
def test_the_second_signal_ends_it_whatever_it_does(number: signal.Signals, hang: str) -> None:
    with stuck(hang) as process:
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(number)
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()

    assert process.returncode in (-number, 128 + number)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(closed: str, cli: CommandLine, recording: str, tmp_path: Path) -> None:
    """What is written to a file must not get what is printed, too."""
    output = tmp_path / "out.collapsed"
    words = f"{sys.executable} -m pprofpy"
    script = (
        f"{words} top {recording} {closed} || exit 1\n"
        f"{words} export {recording} -o {output} {closed} || exit 2\n"
        f"{words} top /missing {closed}; [ $? = 5 ] || exit 3"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=cli.environment)

    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert output.read_text() == "main;work 3\n"


def full_stdout(command: str, cli: CommandLine) -> subprocess.CompletedProcess[str]:
    script = f"{sys.executable} -m pprofpy {command} >/dev/full"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=cli.environment)


@pytest.mark.parametrize("command", ["--help", "top {}", "top --json {}", "list . {}", "flamegraph -o - {}"])
def test_a_full_disk_behind_standard_output(command: str, cli: CommandLine, recording: str) -> None:
    done = full_stdout(command.format(recording), cli)

    assert done.returncode == 1
    assert done.stderr == (
        "pprofpy: cannot write to standard output: No space left on device\n  hint: free some space\n"
    )


def test_a_full_disk_behind_standard_error_harms_nothing(cli: CommandLine, recording: str, tmp_path: Path) -> None:
    words = f"{sys.executable} -m pprofpy export {recording} -o {tmp_path}/out.collapsed 2>/dev/full"
    done = subprocess.run(["bash", "-c", words], capture_output=True, check=False, env=cli.environment)

    assert done.returncode == 0
    assert (tmp_path / "out.collapsed").read_text() == "main;work 3\n"


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
@pytest.mark.parametrize("command", ["--help", "top", "list .", "cpu --help", "traces"])
def test_a_locale_without_our_characters(
    command: str, locale: dict[str, str], cli: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "größe.pb.gz"
    path.write_bytes(pprof.write(profile_of({"größe > λ": 3})))
    words = [sys.executable, "-m", "pprofpy", *command.split(), *([] if "--help" in command else [str(path)])]
    done = subprocess.run(words, capture_output=True, check=False, env={**cli.environment, **locale})

    assert (done.returncode, done.stderr) == (0, b"")


def test_little_memory_is_named_as_the_reason(cli: CommandLine, recording: str) -> None:
    script = f"ulimit -v 60000; exec {sys.executable} -m pprofpy top {recording}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=cli.environment)

    assert done.returncode == 1
    assert done.stderr.startswith("pprofpy: out of memory\n  hint: ")
