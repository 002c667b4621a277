"""`pprofpy events` on a program that causes known numbers of events in known functions."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pprofpy.collectors.events import EventProfileRecorder, choose
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.errors import UsageError
from pprofpy.formats.files import read_profile
from pprofpy.model.profile import Profile
from tests.conftest import FREE_PYTHONS, PROGRAMS, PYTHONS, CommandLine, Start, beside_others, interpreter

pytestmark = pytest.mark.ebpf

PROGRAM = str(PROGRAMS / "events.py")


def record(version: str, *events: str, weight: str = "") -> Profile:
    """What the program causes of these events between its two words."""
    with subprocess.Popen(
        [interpreter(version), PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as program:
        assert program.stdin
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        with EventProfileRecorder(choose(events, weight), Scope(program.pid)) as recorder:
            program.stdin.write("\n")
            recorder.drain()
            assert program.stdout.readline() == "done\n"
            recorder.drain()
            profile = recorder.finish().profile
        program.kill()
    profile.check_valid()
    assert profile.collection.dropped == 0, profile.collection
    return profile


def by_function(profile: Profile, event: str, value: int = 0) -> Counter[str]:
    """The sum for each function that was innermost."""
    sums: Counter[str] = Counter()
    for stack, values, labels in profile.samples():
        if ("event", event) in [(label.key, label.value) for label in labels]:
            sums[stack[0].function.name] += values[value]
    return sums


@pytest.mark.parametrize("version", [*PYTHONS, *FREE_PYTHONS])
def test_system_calls_and_page_faults_are_counted_where_they_are_caused(version: str) -> None:
    profile = record(version, "write", "page-faults,exceptions:page_fault_user")

    writes = by_function(profile, "write")
    assert (writes["events.write_often"], writes["events.write_much"]) == (300, 50)
    for event in ("page-faults", "exceptions:page_fault_user"):
        faults = by_function(profile, event)
        assert 400 <= faults["events.touch_pages"] <= 405  # its own pages, and a few that the interpreter needs
        assert faults["events.write_often"] < 20


def test_a_field_is_added_up() -> None:
    profile = record("3.12", "syscalls:sys_exit_write,syscalls:sys_exit_read", weight="ret")

    assert [str(one) for one in profile.sample_types] == ["events/count", "ret/count"]
    event = "syscalls:sys_exit_write"
    assert by_function(profile, event, 0)["events.write_much"] == 50
    assert by_function(profile, event, 1)["events.write_much"] == 5000
    assert by_function(profile, event, 1)["events.write_often"] == 300


def test_stacks_are_whole_and_lines_are_those_of_the_call() -> None:
    profile = record("3.11", "write")

    stacks = {
        tuple(f"{frame.function.name}:{frame.line}" for frame in stack)
        for stack, _, _ in profile.samples()
        if stack[0].function.name == "events.write_much"
    }
    lines = Path(PROGRAM).read_text().splitlines()
    at = lines.index('        os.write(sink, b"x" * 100)') + 1
    called = lines.index("    write_much(sink)") + 1
    (stack,) = stacks
    assert stack[:2] == (f"events.write_much:{at}", f"events.main:{called}")


@beside_others
def test_bytes_are_bytes() -> None:
    assert [str(one) for one in choose(["kmem:kmalloc"], "bytes_alloc").value_types] == [
        "events/count",
        "bytes_alloc/bytes",
    ]


@beside_others
@pytest.mark.parametrize(
    ("events", "weight", "hint"),
    [
        (["kmem:mm_page_aloc"], "", "kmem:mm_page_alloc"),
        (["kmem:kmalloc"], "bytes_aloc", "bytes_alloc"),
        (["kmem:mm_page_alloc"], "zzz", "order"),
        (["write"], "ret", "syscalls:sys_exit_read --weight ret"),
        (["page-faults"], "address", "tracepoints have"),
    ],
)
def test_unknown_names_come_with_the_nearest(events: list[str], weight: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose(events, weight)

    assert hint in caught.value.hint


@beside_others
def test_a_command_is_recorded_until_it_ends(cli: CommandLine, tmp_path: Path) -> None:
    program = tmp_path / "writer.py"
    program.write_text(
        "import os, time\n"
        "def write_some(sink):\n"
        "    end = time.monotonic() + 1\n"
        "    while time.monotonic() < end: os.write(sink, b'x'); time.sleep(0.01)\n"
        "write_some(os.open('/dev/null', os.O_WRONLY))\n"
    )

    file = tmp_path / "x.pb.gz"
    done = cli("events", "-e", "write", "--json", "-o", str(file), "--", sys.executable, str(program))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"][0]["name"] == "writer.write_some"
    assert read_profile(str(file)).total(0) > 20


@beside_others
def test_an_interrupt_ends_it_early_and_keeps_what_there_is(cli: CommandLine, start: Start) -> None:
    naps = "import time\nprint('ready', flush=True)\nwhile input(): print(*map(time.sleep, [0.005] * 50), flush=True)"
    program = start(sys.executable, "-c", naps, stdin=subprocess.PIPE)

    recording = cli.start("events", "-e", "context-switches", "--pid", str(program.pid))
    assert recording.stderr
    assert "recording" in recording.stderr.readline()
    assert program.stdin
    assert program.stdout
    program.stdin.write("go\n")
    program.stdin.flush()
    program.stdout.readline()  # it has slept
    recording.send_signal(signal.SIGINT)
    stdout, stderr = recording.communicate()

    assert recording.returncode == 0, stderr
    assert stdout.startswith("events: ")
    assert [path.name.startswith("events-") for path in cli.recordings] == [True]


@beside_others
def test_what_is_not_python_or_not_permitted_is_refused(cli: CommandLine) -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        foreign = cli("events", "-e", "write", "--pid", str(sleeper.pid))
        words = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
        unprivileged = cli("events", "-e", "write", "--pid", str(sleeper.pid), prefix=words)
        sleeper.kill()

    assert foreign.returncode == 3
    assert "is not a Python process" in foreign.stderr
    assert unprivileged.returncode == 4
    assert "kernel probes need CAP_BPF" in unprivileged.stderr
