"""As root on a hostile target, pprofpy changes no file but its own, and those that -o names."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import PATIENCE_S, CommandLine, beside_others
from tests.hostile.audit import CALLS, Change, changes, strace, writes
from tests.hostile.conftest import Attack, Hostile
from tests.hostile.recorders import each_of

COMMANDS = [
    ("cpu", "--engine", "bpf"),
    ("cpu", "--engine", "bpf", "--native", "-o", "OUT/cpu.svg"),
    ("cpu", "--engine", "py-spy"),
    ("heap", "--engine", "sampling", "-o", "OUT/heap.pb.gz"),
    ("heap", "--engine", "tracemalloc"),
    ("trace", "-o", "OUT/trace.txt"),
    ("off-cpu", "--wakers"),
    ("gil",),
    ("sched-latency", "--trace"),
    ("events", "-e", "page-faults", "-o", "OUT/events.collapsed"),
]
VIEWS = [
    ("list", "burn"),
    ("top",),
    ("flamegraph", "-o", "OUT/flame.svg"),
    ("export", "-f", "speedscope", "-o", "OUT/speedscope.json"),
]

IN_MEMORY = re.compile(r'memfd_create\("pprofpy", |\w+\(\d+</memfd:pprofpy \(deleted\)>')
"""Calls on files that have no name and no place."""

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="there is no strace here: apt-get install strace")


@pytest.fixture
def audited(attack: Attack, cli: CommandLine, tmp_path: Path) -> Attack:
    """Attack under strace; fails on each change of a file that is not ours."""
    (tmp_path / "out").mkdir()
    log = tmp_path / "strace.log"

    def run(program: object, *words: str) -> object:
        line = [word.replace("OUT", str(tmp_path / "out")) for word in words]
        outcome = attack(program, *line, prefix=tuple(strace(log)), extra={"XDG_CACHE_HOME": str(tmp_path / "cache")})
        made = changes(log, Path.cwd())
        foreign = {str(change) for change in made if not is_ours(change, tmp_path, outcome.pid)}
        assert "openat" in log.read_text(errors="replace"), "strace saw nothing"
        assert foreign == set()
        return outcome

    return run  # type: ignore[return-value]


def is_ours(change: Change, folder: Path, pid: int) -> bool:
    """Is it a file that pprofpy may change, by what it documents?"""
    own = [folder, Path("/root/.cache/pprofpy"), Path(sysconfig.get_path("purelib")), Path(__file__).parents[2]]
    known = {
        "/dev/null",
        f"/proc/{pid}/mem",
    }
    path = re.sub(r"( \(deleted\))?$", "", change.path)
    return path in known or path.startswith(("/memfd:", "memfd:")) or any(Path(path).is_relative_to(one) for one in own)


@each_of(COMMANDS)
def test_a_recording_changes_no_file_of_others(words: tuple[str, ...], audited: Attack) -> None:
    audited("names.py", *words, "--pid", "PID", "-d", "500ms")


@beside_others
@pytest.mark.parametrize("engine", ["sampling", "tracemalloc"])
def test_the_agent_changes_nothing_but_files_of_its_own_in_memory(
    engine: str, hostile: Hostile, attack: Attack, cli: CommandLine, tmp_path: Path
) -> None:
    """strace cannot watch a process that `heap` attaches to; the kernel's tracepoints can."""
    program, log = hostile("names.py"), tmp_path / "calls.trace"
    watching = cli.start("trace", "--pid", str(program.pid), "-e", f"{CALLS},memfd_create", "-o", str(log), "-d", "600")
    try:
        assert watching.stderr
        assert watching.stderr.readline().startswith("recording")
        outcome = attack(program, "heap", "--engine", engine, "--pid", "PID", "-d", "500ms")
    finally:
        watching.send_signal(signal.SIGINT)
        _, remarks = watching.communicate(timeout=PATIENCE_S)

    assert outcome.status == 0, outcome.stderr
    assert "Lost" not in remarks
    found = [json.loads(line) for line in cli("trace", "--input", str(log), "--json").stdout.splitlines()]
    calls = [one["event"] + one["text"] for one in found]
    changing = [call for call in calls if not call.startswith("open") or writes(call)]
    assert [call for call in calls if call.startswith("memfd_create(")], "the trace saw nothing"
    assert [call for call in changing if not IN_MEMORY.match(call)] == []


def test_a_view_changes_no_file_of_others(attack: Attack, audited: Attack, cli: CommandLine) -> None:
    recorded = attack("names.py", "cpu", "--engine", "py-spy", "--pid", "PID", "-d", "500ms")
    assert recorded.status == 0

    for words in VIEWS:
        audited("names.py", *words, str(cli.recordings[0]))
