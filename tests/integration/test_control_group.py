"""A control group as the target: who is in it, who enters it, and nobody else."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pprofpy.formats.files import read_profile
from pprofpy.target import descendants_of, find_control_group, procfs
from pprofpy.target.control_group import container_ids
from tests.conftest import PROGRAMS, CommandLine, Start, beside_others, wait_until
from tests.control_groups import control_group

COMER = (sys.executable, str(PROGRAMS / "comer.py"))
ID = "4f2a91c07b3e" + "5" * 52


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Path:
    """An empty group of version 2, which may be mounted beside version 1."""
    root = Path("/sys/fs/cgroup")
    return control_group(root if (root / "cgroup.procs").exists() else root / "unified", "cgroup.procs", request)


@pytest.fixture
def old_group(request: pytest.FixtureRequest) -> Path:
    """One of version 1."""
    return control_group(Path("/sys/fs/cgroup/cpu"), "cgroup.procs", request)


def begun(recording: subprocess.Popen[str], beginning: str = "recording ") -> str:
    """Wait for the line of a command that says that it has begun; returns all up to that."""
    assert recording.stderr is not None
    told = ""
    while not (line := recording.stderr.readline()).startswith(beginning):
        assert line, told
        told += line
    return told + line


def put(pid: int, group: Path) -> None:
    (group / "cgroup.procs").write_text(str(pid))


def below(group: Path, name: str, request: pytest.FixtureRequest) -> Path:
    """A group below one, removed before that is."""
    made = group / name
    made.mkdir()

    def is_removed() -> bool:
        for pid in (made / "cgroup.procs").read_text().split():
            put(int(pid), group)
        made.rmdir()
        return True

    request.addfinalizer(is_removed)
    return made


@beside_others
def test_members_their_children_and_late_comers_are_recorded_and_nobody_else(
    group: Path, cli: CommandLine, start: Start, request: pytest.FixtureRequest
) -> None:
    inner = below(group, "inner", request)
    member, deep = start(*COMER, "member", "child"), start(*COMER, "deep")
    late, stranger = start(*COMER, "late"), start(*COMER, "stranger")
    (child,) = descendants_of(member.pid)
    put(member.pid, group)
    put(child, group)
    put(deep.pid, inner)
    recording = cli.start("cpu", "--cgroup", str(group), "-d", "1h", "-r", "500", "--engine", "bpf")
    told = begun(recording, "engine: eBPF")

    put(late.pid, group)
    before = {pid: cpu_ns(pid) for pid in (member.pid, child, deep.pid, late.pid, stranger.pid)}
    wait_until(lambda: all(cpu_ns(pid) > ns + 300_000_000 for pid, ns in before.items()), "all have burnt CPU time")
    recording.send_signal(signal.SIGINT)
    _, messages = recording.communicate()

    assert recording.returncode == 0, messages
    assert f"recording control group {find_control_group(str(group)).path} (pids " in told
    counts = by_function(cli)
    assert {"member", "child", "deep", "late"} <= counts.keys(), (counts, messages)
    assert "stranger" not in counts


def cpu_ns(pid: int) -> int:
    return procfs.stat(pid).cpu_ns


def by_function(cli: CommandLine) -> dict[str, int]:
    """Samples by the function that burnt."""
    counts: dict[str, int] = {}
    for stack, values, _ in read_profile(str(cli.recordings[0])).samples():
        name = stack[0].function.system_name
        counts[name] = counts.get(name, 0) + values[0]
    return counts


@beside_others
def test_events_of_all_its_processes_are_traced_python_or_not(group: Path, cli: CommandLine, start: Start) -> None:
    script = "echo ready; while :; do read line < /dev/null; /bin/true; done"
    inside, outside = start("sh", "-c", script), start("sh", "-c", script)
    put(inside.pid, group)

    done = cli("trace", "--cgroup", str(group), "-s", "-d", "2", "-e", "execve,openat", "--json")

    assert done.returncode == 0, done.stderr
    pids = {row["pid"] for row in json.loads(done.stdout)["threads"]}
    assert inside.pid in pids
    assert len(pids) > 2, "and those that it starts"
    assert outside.pid not in pids


@beside_others
@pytest.mark.parametrize("command", [("off-cpu",), ("sched-latency", "--stacks")])
def test_waits_of_one_that_enters_count_from_then_on(
    command: tuple[str, ...], group: Path, cli: CommandLine, start: Start
) -> None:
    member, late = start(sys.executable, "-c", WAITS), start(sys.executable, "-c", WAITS)
    put(member.pid, group)
    recording = cli.start(*command, "--cgroup", str(group), "-d", "1h", "--json")
    begun(recording)

    put(late.pid, group)
    before = {pid: switches(pid) for pid in (member.pid, late.pid)}
    wait_until(lambda: all(switches(pid) > count + 20 for pid, count in before.items()), "they have waited")
    recording.send_signal(signal.SIGINT)
    output, messages = recording.communicate()

    assert recording.returncode == 0, messages
    assert {f'"tid": {member.pid},', f'"tid": {late.pid},'} <= set(re.findall(r'"tid": \d+,', output)), output


WAITS = """
import os, time
print("ready", flush=True)
while True:
    os.getppid()
    time.sleep(0.01)
"""


@beside_others
def test_who_has_left_is_recorded_no_more(group: Path, cli: CommandLine, start: Start) -> None:
    leaver, late = start(sys.executable, "-c", WAITS), start(sys.executable, "-c", WAITS)
    put(leaver.pid, group)
    recording = cli.start("trace", "--cgroup", str(group), "-e", "getppid", "--json")
    begun(recording)
    assert recording.stdout
    assert json.loads(recording.stdout.readline())["pid"] == leaver.pid

    put(leaver.pid, group.parent)
    put(late.pid, group)
    order = [json.loads(recording.stdout.readline())["pid"] for _ in range(100)]
    recording.send_signal(signal.SIGINT)
    _, messages = recording.communicate()

    assert recording.returncode == 0, messages
    first = order.index(late.pid)
    assert set(order[first:]) == {late.pid}, "who leaves is let go first"


def switches(pid: int) -> int:
    (count,) = re.findall(r"^voluntary_ctxt_switches:\t(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(count)


@beside_others
def test_a_container_is_recorded_by_its_id(
    group: Path, cli: CommandLine, start: Start, request: pytest.FixtureRequest
) -> None:
    container = below(group, f"docker-{ID}.scope", request)
    inside = start(*COMER, "inside")
    put(inside.pid, container)

    assert ID in container_ids()
    done = cli("cpu", "--container", ID[:12], "-d", "1", "--engine", "bpf")

    assert done.returncode == 0, done.stderr
    assert "recording container 4f2a91c07b3e" in done.stderr
    assert "inside" in by_function(cli)
    assert "container_4f2a91c07b3e" in cli.recordings[0].name


@beside_others
def test_a_recording_of_version_1_ends_when_the_last_process_has_left(
    old_group: Path, cli: CommandLine, start: Start
) -> None:
    member = start(*COMER, "member")
    put(member.pid, old_group)
    recording = cli.start("cpu", "--cgroup", str(old_group), "-d", "1h", "--engine", "bpf")
    begun(recording, "engine: eBPF")
    began = cpu_ns(member.pid)
    wait_until(lambda: cpu_ns(member.pid) > began + 300_000_000, "it has burnt CPU time")

    member.kill()
    _, messages = recording.communicate()

    assert recording.returncode == 0, messages
    assert "member" in by_function(cli)


def test_an_empty_group_and_pyspy_are_refused(group: Path, cli: CommandLine, start: Start) -> None:
    empty = cli("cpu", "--cgroup", str(group), "-d", "1")
    assert (empty.returncode, "no process is in control group" in empty.stderr) == (3, True), empty.stderr

    member = start(*COMER, "member")
    put(member.pid, group)
    outside = cli("cpu", "--cgroup", str(group), "-d", "1", "--engine", "py-spy")
    assert (outside.returncode, "py-spy records one process" in outside.stderr) == (4, True), outside.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--cgroup", "/no/such/group"], 3, "there is no control group /no/such/group"),
        (["--cgroup", "/proc/self"], 3, "/proc/self is not a control group"),
        (["--cgroup", "../../../../../../etc"], 3, "etc is not a control group"),
        (["--container", "no id"], 2, "is no container's id"),
        (["--container", "0123456789ab" * 4], 3, "no process is in a container 0123456789ab"),
        (["--container", "0123", "--cgroup", "/"], 2, "--cgroup and --container exclude each other"),
    ],
)
def test_what_is_no_group_is_refused_with_a_hint(words: list[str], status: int, message: str, cli: CommandLine) -> None:
    done = cli("trace", *words, "-d", "1")

    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr
    assert "hint:" in done.stderr
