"""`pprofpy cpu` on real processes: what is recorded, what is refused, and that no target is ever harmed.

All through py-spy, which works everywhere; test_cpu_bpf.py has what is special about the kernel engine.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pprofpy.formats.files import read_profile
from pprofpy.model.profile import PYTHON_MAPPING, Profile
from pprofpy.target import descendants_of
from tests.conftest import BURN_AND_REST, PATIENCE_S, PROGRAMS, CommandLine, Start, comm, wait_until

BURN, SLEEPER = str(PROGRAMS / "burn.py"), str(PROGRAMS / "sleeper.py")
PYTHON = sys.executable
CPU = ("cpu", "--engine", "py-spy")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user or to mount")


@pytest.fixture
def burning(start: Start) -> subprocess.Popen[str]:
    return start(PYTHON, *BURN_AND_REST)


def only_profile(cli: CommandLine) -> Profile:
    assert len(cli.recordings) == 1
    return read_profile(str(cli.recordings[0]))


def function_names(profile: Profile) -> set[str]:
    return {function.name for function in profile.functions}


def labels(profile: Profile, key: str) -> set[str | int]:
    return {label.value for label_set in profile.label_sets for label in label_set if label.key == key}


def stat_fields(pid: int) -> list[str]:
    """What the kernel says of a process, its name aside: state first, user and system ticks at 11 and 12."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def ticks_of(pid: int) -> int:
    """The CPU time of a process, in hundredths of a second."""
    return sum(map(int, stat_fields(pid)[11:13]))


def has_ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or stat_fields(pid)[0] in "ZX"


# -- what is recorded ----------------------------------------------------------------------------------------------


def test_the_recording_tells_what_when_how_long_and_how_complete(
    cli: CommandLine, burning: subprocess.Popen[str]
) -> None:
    done = cli(*CPU, "--pid", str(burning.pid), "-d", "1.5", "-r", "200")

    assert done.returncode == 0, done.stderr
    profile = only_profile(cli)
    assert [str(kind) for kind in profile.sample_types] == ["samples/count", "cpu/nanoseconds"]
    assert (str(profile.period_type), profile.period) == ("cpu/nanoseconds", 5_000_000)
    assert (profile.values[:, 1] == profile.values[:, 0] * profile.period).all()
    assert profile.duration_ns >= 1_500_000_000
    assert profile.time_ns > 1_700_000_000 * 10**9
    assert profile.mappings == [PYTHON_MAPPING]
    assert labels(profile, "thread") == {"MainThread"}
    assert labels(profile, "tid") == {burning.pid}
    collection = profile.collection
    assert collection.engine.startswith("py-spy ")
    assert collection.asked == round(200 * profile.duration_ns / 10**9)
    assert collection.got >= profile.values[:, 0].sum() > 0
    assert collection.errors == 0


def test_functions_have_their_module_and_the_whole_path(cli: CommandLine, burning: subprocess.Popen[str]) -> None:
    cli(*CPU, "--pid", str(burning.pid), "-d", "1")

    half = next(function for function in only_profile(cli).functions if function.system_name == "half")
    assert (half.name, half.filename) == ("burn.half", BURN)


def test_the_table_shows_the_losses_and_the_next_steps(cli: CommandLine, burning: subprocess.Popen[str]) -> None:
    done = cli(*CPU, "--pid", str(burning.pid), "-d", "1", "-v")

    assert "burn.half" in done.stdout
    assert re.search(r"Samples: about 1\d\d expected, \d+ taken, \d+ late, 0 errors", done.stdout), done.stdout
    assert f"saved: {cli.recordings[0]}" in done.stderr
    assert "pprofpy flamegraph" in done.stderr


def test_json_holds_the_same_for_programs(cli: CommandLine, burning: subprocess.Popen[str]) -> None:
    data = json.loads(cli(*CPU, "--pid", str(burning.pid), "-d", "1", "--threads", "--json").stdout)

    assert data["path"] == str(cli.recordings[0])
    assert "burn.half" in {row["name"] for row in data["rows"]}
    assert [(row["thread"], row["tid"]) for row in data["threads"]] == [("MainThread", burning.pid)]


def test_hostile_names_stay_what_they_are_in_the_file_and_are_harmless_on_the_screen(
    cli: CommandLine, start: Start
) -> None:
    hostile = start(PYTHON, str(PROGRAMS / "hostile.py"))

    done = cli(*CPU, "--pid", str(hostile.pid), "-d", "1", "--threads")

    profile = only_profile(cli)
    assert labels(profile, "thread") == {"MainThread", "evil \n;\x1b[31m<script>alert(1)</script> (x)"}
    assert "/srv/a b;c\n\x1b[31m<script>.py" in {function.filename for function in profile.functions}
    assert "\x1b" not in done.stdout + done.stderr
    assert "evil \\n;\\x1b[31m<script>" in done.stdout


def test_waiting_threads_count_only_with_idle(cli: CommandLine, start: Start) -> None:
    sleeper = start(PYTHON, SLEEPER)

    cli(*CPU, "--pid", str(sleeper.pid), "-d", "1")
    cli(*CPU, "--pid", str(sleeper.pid), "-d", "1", "--idle", "-o", str(cli.folder / "idle.pb.gz"))

    busy, waiting = (read_profile(str(path)) for path in cli.recordings)
    assert "sleeper.wait_for_ever" in function_names(waiting)
    assert [str(kind) for kind in waiting.sample_types] == ["samples/count", "wall/nanoseconds"]
    assert busy.values[:, 0].sum() < waiting.values[:, 0].sum() / 2  # not none: py-spy wakes what it looks at


def test_subprocesses_are_told_apart_by_pid(cli: CommandLine, start: Start) -> None:
    parent = start(PYTHON, str(PROGRAMS / "family.py"))
    (child,) = (pid for pid in descendants_of(parent.pid) if b"family" in Path(f"/proc/{pid}/cmdline").read_bytes())

    cli(*CPU, "--pid", str(parent.pid), "-d", "2", "--subprocesses")

    profile = only_profile(cli)
    os.kill(child, signal.SIGKILL)
    assert labels(profile, "pid") == {parent.pid, child}
    assert {"family.parent_work", "family.child_work"} <= function_names(profile)


def test_gil_counts_only_the_holder_and_says_so(cli: CommandLine, burning: subprocess.Popen[str]) -> None:
    cli(*CPU, "--pid", str(burning.pid), "-d", "1", "--gil")

    profile = only_profile(cli)
    assert "burn.half" in function_names(profile)
    assert profile.collection.basis == ("Only threads that held the interpreter lock were counted.",)


def test_native_frames_lie_in_mappings_of_their_own(cli: CommandLine, start: Start) -> None:
    zipper = start(PYTHON, str(PROGRAMS / "zipper.py"))

    cli(*CPU, "--pid", str(zipper.pid), "-d", "1", "--native")

    profile = only_profile(cli)
    mapping_of = {
        frame.function.name: profile.mappings[location.mapping].filename
        for location in profile.locations
        for frame in profile.frames_of(location)
    }
    assert mapping_of["zipper.press"] == "[python]"
    assert any("libz" in name or name == "[native]" for name in mapping_of.values())


def test_without_pausing_the_number_of_samples_is_unknown_not_invented(
    cli: CommandLine, burning: subprocess.Popen[str]
) -> None:
    cli(*CPU, "--pid", str(burning.pid), "-d", "1", "--nonblocking")

    collection = only_profile(cli).collection
    assert (collection.got, collection.late) == (-1, -1)
    assert any("not paused" in note for note in collection.notes)


# -- choosing the target -------------------------------------------------------------------------------------------


def test_a_name_finds_the_one_process_and_never_pprofpy_itself(cli: CommandLine, start: Start) -> None:
    mark = f"only-{os.getpid()}-{id(cli)}"
    target = start(PYTHON, "-c", "print('ready', flush=True)\nwhile True: pass", mark)

    done = cli(*CPU, "--name", mark, "-d", "1")

    assert done.returncode == 0, done.stderr
    assert labels(only_profile(cli), "tid") == {target.pid}


def test_a_name_that_fits_several_lists_them(cli: CommandLine, start: Start) -> None:
    mark = f"twice-{os.getpid()}-{id(cli)}"
    pids = [start(PYTHON, SLEEPER, mark).pid for _ in range(2)]

    done = cli(*CPU, "--name", mark)

    assert done.returncode == 3
    assert all(f"--pid {pid}" in done.stderr for pid in pids)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--pid", "999999999"], 3, "there is no process"),
        (["--pid", "-1"], 3, "there is no process"),
        (["--name", "no such thing as this"], 3, "no Python process matches"),
        (["--name", "("], 2, "regular expression"),
        (["1234"], 2, "--pid 1234"),
        (["--pid", "1", "--name", "x"], 2, "exclude each other"),
        (["--pid", "1", "-r", "0"], 2, "a rate of 0"),
        (["--pid", "1", "-r", "-5"], 2, "a rate of -5"),
        (["--pid", "1", "-r", "1000000"], 2, "choose 1 to"),
        (["--pid", "1", "-d", "0"], 2, "a duration of 0"),
        (["--pid", "1", "-d", "soon"], 2, "not a duration"),
        (["--pid", "1", "-d", "1000h"], 2, "at most a week"),
        (["--pid", "1", "-g", "-i"], 2, "leave one of them out"),
        (["--pid", "1", "-o", "x.unknown"], 2, "which format"),
        (["--pid", "1", "-o", "/no/such/folder/x.pb.gz"], 1, "mkdir -p"),
        (["--", "/no/such/program.py"], 3, "-- python"),
        (["--", "true"], 3, "ended (exit status 0)"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(
    words: list[str], status: int, message: str, cli: CommandLine
) -> None:
    done = cli(*CPU, *words)

    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert cli.recordings == []


def test_a_process_that_is_not_python_is_refused(cli: CommandLine) -> None:
    with subprocess.Popen(["sleep", "3600"]) as sleep:
        done = cli(*CPU, "--pid", str(sleep.pid))
        sleep.kill()

    assert done.returncode == 3
    assert "is not a Python process" in done.stderr


@needs_root
def test_another_users_process_is_refused_with_the_command_that_works(
    cli: CommandLine, burning: subprocess.Popen[str]
) -> None:
    as_nobody = ("setpriv", "--reuid", "65534", "--clear-groups")
    if subprocess.run(
        [*as_nobody, PYTHON, "-c", "import pprofpy.cli.cpu"], check=False, capture_output=True
    ).returncode:
        pytest.skip("nobody may not read this installation")

    done = cli(*CPU, "--pid", str(burning.pid), prefix=as_nobody)

    assert done.returncode == 4
    assert "belongs to root" in done.stderr
    assert f"sudo {PYTHON} -I -m pprofpy cpu --engine py-spy --pid {burning.pid}" in done.stderr


# -- how it ends ---------------------------------------------------------------------------------------------------


def begun(recording: subprocess.Popen[str]) -> int:
    """Wait until py-spy samples for this pprofpy; returns py-spy's pid."""
    found: list[int] = []

    def is_sampling() -> bool:
        children = descendants_of(recording.pid)
        with suppress(OSError):  # one that tells its version has ended meanwhile
            found[:] = [pid for pid in children if comm(pid) == "py-spy"]
            return bool(found) and ticks_of(found[0]) >= 3
        return False

    wait_until(is_sampling, "py-spy samples")
    return found[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_is_kept(
    number: signal.Signals, cli: CommandLine, burning: subprocess.Popen[str]
) -> None:
    recording = cli.start(*CPU, "--pid", str(burning.pid), "-d", "1h")
    begun(recording)

    recording.send_signal(number)
    _, messages = recording.communicate()

    assert recording.returncode == 0, messages
    assert "burn.half" in function_names(only_profile(cli))


def test_a_target_that_ends_leaves_what_was_recorded(cli: CommandLine, start: Start) -> None:
    brief = start(PYTHON, BURN)
    recording = cli.start(*CPU, "--pid", str(brief.pid), "-d", "1h")
    begun(recording)

    brief.kill()
    table, messages = recording.communicate()

    assert recording.returncode == 0, messages
    assert "The target ended during the recording." in table
    assert "burn.half" in function_names(only_profile(cli))


def test_a_py_spy_that_falls_behind_is_slowed_and_both_parts_are_kept(cli: CommandLine, start: Start) -> None:
    deep = start(PYTHON, str(PROGRAMS / "deep.py"))
    recording = cli.start(*CPU, "--pid", str(deep.pid), "-d", "1h", "-r", "1000")

    def is_sampled_slowly() -> bool:
        for spy in (pid for pid in descendants_of(recording.pid) if comm(pid) == "py-spy"):
            with suppress(OSError):  # it may end at any moment
                words, said = (Path(f"/proc/{spy}/{name}").read_bytes() for name in ("cmdline", "fd/1"))
                before = ticks.setdefault(spy, ticks_of(spy)) if b"Sampling process" in said else math.inf
                return b"\x001000\x00" not in words and ticks_of(spy) >= before + 20
        return False

    ticks: dict[int, int] = {}
    wait_until(is_sampled_slowly, "a slower py-spy samples")

    recording.send_signal(signal.SIGINT)
    _, messages = recording.communicate()

    assert recording.returncode == 0, messages
    profile = only_profile(cli)
    assert "deep.down" in function_names(profile)
    notes = " ".join(profile.collection.notes)
    assert "could not keep up with 1000 Hz; it was slowed to" in notes
    assert "counted -" not in notes
    assert 10 * profile.duration_ns < profile.collection.asked * 10**9 < 1000 * profile.duration_ns


def test_a_killed_py_spy_ends_the_recording_at_once(cli: CommandLine, burning: subprocess.Popen[str]) -> None:
    recording = cli.start(*CPU, "--pid", str(burning.pid), "-d", "1h")

    os.kill(begun(recording), signal.SIGKILL)
    _, messages = recording.communicate(timeout=PATIENCE_S)

    assert recording.returncode == 1
    assert "py-spy failed" in messages
    assert "Traceback" not in messages
    assert stat_fields(burning.pid)[0] in "RS"


@pytest.mark.parametrize("attempt", range(5))
def test_killing_pprofpy_harms_nobody(attempt: int, cli: CommandLine, burning: subprocess.Popen[str]) -> None:
    recording = cli.start(*CPU, "--pid", str(burning.pid), "-d", "1h", "-r", "1000")
    spy = begun(recording)

    recording.kill()
    recording.communicate()

    wait_until(lambda: has_ended(spy), "py-spy ends")
    assert stat_fields(burning.pid)[0] in "RS"


def test_a_command_is_recorded_from_start_to_end(cli: CommandLine) -> None:
    done = cli(*CPU, "--", PYTHON, BURN, "1.5")

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ready\n")
    assert "burn.half" in function_names(only_profile(cli))


@pytest.mark.parametrize(("options", "status"), [([], 0), (["--propagate-status"], 7)])
def test_a_commands_status_is_told_and_passed_on_if_wanted(options: list[str], status: int, cli: CommandLine) -> None:
    program = "import sys, time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nsys.exit(7)"

    done = cli(*CPU, *options, "--", PYTHON, "-c", program)

    assert done.returncode == status
    assert "status 7" in done.stderr


def test_a_duration_ends_the_recording_and_not_the_command(cli: CommandLine) -> None:
    done = cli(*CPU, "-d", "500ms", "--propagate-status", "--", PYTHON, "-c", "print(sum(1 for i in range(10**8)))")

    assert done.returncode == 0
    assert "100000000\n" in done.stdout
    assert only_profile(cli).duration_ns < 5 * 10**9


# -- where it goes -------------------------------------------------------------------------------------------------


def test_standard_output_takes_the_profile_and_nothing_else(
    cli: CommandLine, burning: subprocess.Popen[str], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.pb.gz"
    command = [PYTHON, "-m", "pprofpy", *CPU, "--pid", str(burning.pid), "-d", "1", "-o", "-"]
    with copy.open("wb") as stream:
        subprocess.run(command, stdout=stream, env=cli.environment, check=True)

    assert "burn.half" in function_names(read_profile(str(copy)))
    assert cli.recordings == []


def test_a_file_that_is_not_ours_is_left_alone(
    cli: CommandLine, burning: subprocess.Popen[str], tmp_path: Path
) -> None:
    foreign = tmp_path / "thesis.pb.gz"
    foreign.write_text("three years of work")
    words = (*CPU, "--pid", str(burning.pid), "-d", "1", "-o", str(foreign))

    refused = cli(*words)
    assert (refused.returncode, foreign.read_text()) == (1, "three years of work")
    assert "--force" in refused.stderr

    assert cli(*words, "--force").returncode == 0
    assert "burn.half" in function_names(read_profile(str(foreign)))


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without a free byte."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount here")
    (folder / "filler").write_bytes(b"x" * 65536)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@needs_root
def test_a_full_disk_costs_the_file_but_not_the_recording(
    cli: CommandLine, burning: subprocess.Popen[str], full_disk: Path
) -> None:
    done = cli(*CPU, "--pid", str(burning.pid), "-d", "1", "-o", str(full_disk / "x.pb.gz"))

    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert [path.name for path in full_disk.iterdir()] == ["filler"]
    assert f"the recording is safe in {cli.recordings[0]}" in done.stderr
    assert "burn.half" in function_names(only_profile(cli))
