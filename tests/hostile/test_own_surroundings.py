"""pprofpy in odd surroundings: streams, terminals, signals, limits, folders, clocks. The target never notices."""

from __future__ import annotations

import os
import pty
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pprofpy.formats.files import read_profile
from tests.conftest import PATIENCE_S, CommandLine, beside_others
from tests.hostile.conftest import PROGRAMS, Attack, Hostile
from tests.hostile.harness import Condition, harm
from tests.hostile.recorders import FEW, RECORDERS, Dealer

dealer = Dealer(FEW)

NO_ROOM = {
    "full": 'mount -t tmpfs -o size=16k none "$1" && head -c 16k /dev/zero >"$1/full"; shift; exec "$@"',
    "read-only": 'mount -t tmpfs -o ro none "$1"; shift; exec "$@"',
}


def in_shell(script: str, *words: str) -> tuple[str, ...]:
    """Words before a command: a shell with mounts of its own, whose `"$@"` are these words and the command."""
    return ("unshare", "--mount", "sh", "-c", script, "sh", *words)


@dealer.pairs(["2>&-", "<&- >&- 2>&-"], "closed")
def test_closed_standard_streams(closed: str, words: tuple[str, ...], attack: Attack, cli: CommandLine) -> None:
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "300ms", prefix=in_shell(f'exec "$@" {closed}'))

    assert outcome.status == 0, outcome.stderr
    assert words[0] == "trace" or cli.recordings


@dealer.some()
def test_the_c_locale(words: tuple[str, ...], attack: Attack) -> None:
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}

    outcome = attack("names.py", *words, "--pid", "PID", "-d", "300ms", extra=locale)

    assert outcome.status == 0, outcome.stderr


@dealer.some()
def test_a_terminal_of_one_character(words: tuple[str, ...], hostile: Hostile, cli: CommandLine) -> None:
    program = hostile("names.py")
    before = Condition.of(program.pid)

    status, said = in_terminal([*words, "--pid", str(program.pid), "-d", "300ms"], cli, rows=1, columns=1)

    assert status == 0, said
    assert "Traceback" not in said
    assert harm(program.pid, before) == []


def in_terminal(words: list[str], cli: CommandLine, rows: int, columns: int) -> tuple[int, str]:
    """Run in a terminal of this size; the status, and all that was written to it."""
    import termios

    outer, inner = pty.openpty()
    termios.tcsetwinsize(inner, (rows, columns))
    environment = {name: value for name, value in cli.environment.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "pprofpy", *words]
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environment)
    os.close(inner)
    said = bytearray()
    while part := read_terminal(outer):
        said += part
    os.close(outer)
    return process.wait(PATIENCE_S), said.decode(errors="replace")


def read_terminal(terminal: int) -> bytes:
    """What was written; empty once nobody has it open."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


@dealer.pairs(["SIGHUP", "SIGTERM"], "name")
def test_a_signal_that_ends_it_saves_what_there_is(
    name: str, words: tuple[str, ...], attack: Attack, cli: CommandLine
) -> None:
    number = signal.Signals[name]
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "60", interrupt=True, signals=(number,))

    assert outcome.status == 0 or "interrupted before anything" in outcome.stderr, outcome.stderr
    assert outcome.status or words[0] == "trace" or cli.recordings


@dealer.some()
def test_it_goes_on_after_it_was_stopped(words: tuple[str, ...], attack: Attack) -> None:
    stops = (signal.SIGTSTP, signal.SIGSTOP, signal.SIGCONT, signal.SIGSTOP, signal.SIGCONT)

    outcome = attack("names.py", *words, "--pid", "PID", "-d", "2", interrupt=True, signals=stops)

    assert outcome.status == 0, outcome.stderr


LIMITS = {
    "nofile": ["6", "16", "40"],
    "as": ["60000000", "400000000"],
    "nproc": ["1"],
    "fsize": ["0"],
    "stack": ["200000"],
    "memlock": ["0"],
    "core": ["0"],
}


@dealer.pairs([f"{limit}={value}" for limit, values in LIMITS.items() for value in values], "limit")
def test_limits(limit: str, words: tuple[str, ...], attack: Attack) -> None:
    """It works, or says why not."""
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "300ms", prefix=("prlimit", f"--{limit}"))

    assert outcome.status == 0 or "pprofpy: " in outcome.stderr, outcome.stderr


@Dealer(RECORDERS).some(3)
def test_a_limit_of_cpu_time_harms_nobody(words: tuple[str, ...], hostile: Hostile, cli: CommandLine) -> None:
    """Where it takes more, the kernel ends pprofpy by SIGXCPU; the target does not notice."""
    program = hostile("names.py")
    before = Condition.of(program.pid)

    process = subprocess.run(
        [sys.executable, "-m", "pprofpy", *words, "--pid", str(program.pid), "-d", "3"],
        env=cli.environment, capture_output=True, timeout=PATIENCE_S, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (1, 1)),
    )  # fmt: skip

    assert b"Traceback" not in process.stderr
    assert harm(program.pid, before) == []


@dealer.pairs(list(NO_ROOM), "why")
def test_a_profile_folder_that_takes_nothing(why: str, words: tuple[str, ...], attack: Attack, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()

    outcome = attack(
        "names.py", *words, "--pid", "PID", "-d", "300ms", extra={"PPROFPY_DIR": str(place)},
        prefix=in_shell(NO_ROOM[why], str(place)),
    )  # fmt: skip

    saved = [line.partition("saved: ")[2] for line in outcome.stderr.split("\n") if line.startswith("saved: ")]
    try:
        assert outcome.status == 0, outcome.stderr
        if words[0] != "trace":
            assert saved
            assert read_profile(saved[0]).sample_types
    finally:
        for path in saved:
            Path(path).unlink()


@dealer.pairs(list(NO_ROOM), "why")
def test_a_named_folder_that_takes_nothing(
    why: str, words: tuple[str, ...], attack: Attack, tmp_path: Path, cli: CommandLine
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    name = f"{place}/x.txt" if words[0] == "trace" else f"{place}/x.pb.gz"

    outcome = attack(
        "names.py", *words, "--pid", "PID", "-d", "300ms", "-o", name, prefix=in_shell(NO_ROOM[why], str(place))
    )

    assert outcome.status == 1, outcome.stderr
    assert "pprofpy: cannot write" in outcome.stderr


@dealer.pairs(["umount -l /proc", "mount -t tmpfs none /proc"], "hide")
def test_no_proc(hide: str, words: tuple[str, ...], attack: Attack) -> None:
    outcome = attack("names.py", *words, "--pid", "PID", "-d", "300ms", prefix=in_shell(f'{hide}; exec "$@"'))

    assert outcome.status == 4, outcome.stderr
    assert "/proc is not mounted" in outcome.stderr


def test_doctor_says_that_there_is_no_proc(attack: Attack) -> None:
    outcome = attack("names.py", "doctor", prefix=in_shell('umount -l /proc; exec "$@"'))

    assert outcome.status == 4
    assert "mount -t proc" in outcome.stderr


def test_nothing_takes_a_recording(attack: Attack, tmp_path: Path) -> None:
    places = ["/tmp", "/var/tmp", "/dev/shm", str(tmp_path)]
    script = "".join(f"mount --bind {one} {one} && mount -o remount,ro,bind {one} && " for one in places) + 'exec "$@"'

    outcome = attack(
        "names.py", "cpu", "--engine", "py-spy", "--pid", "PID", "-d", "300ms", prefix=in_shell(script),
        extra={"PPROFPY_DIR": str(tmp_path)},
    )  # fmt: skip

    assert outcome.status == 1, outcome.stderr
    assert "could not be saved anywhere" in outcome.stderr


@dealer.some()
def test_a_clock_that_jumps(words: tuple[str, ...], attack: Attack, tmp_path: Path) -> None:
    if not shutil.which("cc"):
        pytest.skip("there is no C compiler here")
    library = tmp_path / "jump.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, PROGRAMS / "jump.c"], check=True)

    outcome = attack("names.py", *words, "--pid", "PID", "-d", "1", extra={"LD_PRELOAD": str(library)})

    assert outcome.status == 0, outcome.stderr
    assert outcome.wall_s >= 1


@beside_others
def test_four_recorders_on_one_target(attack: Attack, hostile: Hostile) -> None:
    program = hostile("names.py")
    failed: list[str] = []

    def record(words: tuple[str, ...]) -> None:
        try:
            outcome = attack(program, *words, "--pid", "PID", "-d", "2", restless=True)
            assert outcome.status == 0, outcome.stderr
        except AssertionError as error:
            failed.append(str(error))

    four = [RECORDERS[0], RECORDERS[2], ("off-cpu",), ("trace",)]
    before = Condition.of(program.pid)
    threads = [threading.Thread(target=record, args=(words,)) for words in four]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert harm(program.pid, before) == []


@beside_others
@pytest.mark.parametrize(("seconds", "status"), [("100000", 4), ("0", 0)])
def test_a_clock_that_is_not_the_kernels(seconds: str, status: int, attack: Attack) -> None:
    """The real monotonic clock cannot jump; a time namespace shows it shifted, and eBPF programs do not see that."""
    shifted = ("unshare", "--time", "--fork", "--monotonic", seconds)

    outcome = attack("names.py", "off-cpu", "--pid", "PID", "-d", "300ms", prefix=shifted)

    assert outcome.status == status, outcome.stderr
    assert status == 0 or "time namespace" in outcome.stderr
