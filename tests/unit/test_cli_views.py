"""The view commands: what they take, what they print, and how they fail."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pprofpy.cli.main import run
from pprofpy.formats import decode, pprof
from pprofpy.formats.files import save_recording
from pprofpy.model.profile import Label, LabelSet
from tests.stacks import PERIOD_NS, as_text, profile_of

VIEWS = [["top"], ["list", "."], ["peek", "."], ["tree"], ["traces"]]

STACKS: dict[tuple[str, LabelSet], int] = {
    ("main > work", (Label("thread", "T1"),)): 6,
    ("main > idle", (Label("thread", "T2"),)): 2,
    ("main > \x1b[31mred", ()): 1,
}


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Result]


@contextmanager
def standard_input(descriptor: int) -> Iterator[None]:
    saved = os.dup(0)
    os.dup2(descriptor, 0)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command line with a profile folder of its own."""
    monkeypatch.setenv("PPROFPY_DIR", str(tmp_path / "profiles"))

    def pprofpy(*words: object) -> Result:
        status = run(list(map(str, words)))
        return Result(status, *capsys.readouterr())

    return pprofpy


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "cpu.pb.gz"
    path.write_bytes(pprof.write(profile_of(STACKS)))
    return path


class TestInput:
    """Which profile is shown."""

    @pytest.mark.parametrize("view", VIEWS, ids=" ".join)
    def test_every_view_prints_a_table_and_no_escape_sequence(
        self, view: list[str], command: Command, recording: Path
    ) -> None:
        result = command(*view, recording)

        assert (result.status, result.err) == (0, "")
        assert "work" in result.out
        assert "\x1b" not in result.out
        assert r"\x1b[31mred" in result.out

    @pytest.mark.parametrize("view", VIEWS, ids=" ".join)
    def test_every_view_has_json(self, view: list[str], command: Command, recording: Path) -> None:
        data = command(*view, "--json", recording).json

        assert (data["sample_type"], data["unit"], data["total"]) == ("cpu", "nanoseconds", 9 * PERIOD_NS)
        assert data.get("rows") or data.get("nodes") or data.get("traces") or data.get("routines")

    def test_without_a_name_it_is_the_latest_recording(self, command: Command) -> None:
        save_recording(pprof.write(profile_of({"old": 1})), "a.pb.gz")
        newer = save_recording(pprof.write(profile_of({"new": 1})), "b.pb.gz")
        os.utime(newer, (2**31, 2**31))

        result = command("top")

        assert "new" in result.out
        assert result.err == f"the latest recording, 0 s old: {newer}\n"

    def test_without_a_sample_there_is_no_table(self, command: Command, tmp_path: Path) -> None:
        (tmp_path / "empty.pb.gz").write_bytes(pprof.write(profile_of({})))

        result = command("top", tmp_path / "empty.pb.gz")

        assert result.out.endswith("There is no sample in it.\n")
        assert "flat" not in result.out

    def test_several_profiles_are_summed_up(self, command: Command, recording: Path) -> None:
        assert command("top", "--json", recording, recording).json["total"] == 18 * PERIOD_NS

    def test_standard_input_is_a_profile_too(self, command: Command, recording: Path) -> None:
        with recording.open("rb") as stream, standard_input(stream.fileno()):
            assert "work" in command("top", "-").out


class TestReadingOptions:
    """What all views share."""

    def flat(self, result: Result) -> dict[str, int]:
        return {row["name"]: row["flat"] // PERIOD_NS for row in result.json["rows"] if row["flat"]}

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--focus", "work"], {"work": 6}),
            (["--ignore", "work|red"], {"idle": 2}),
            (["--tagfocus", "thread=T2"], {"idle": 2}),
            (["--show", "main"], {"main": 9}),
            (["--hide", "idle|red"], {"work": 6, "main": 3}),
            (["--nodefraction", "0.5"], {"work": 6}),
            (["-n", "1"], {"work": 6}),
            (["-N", "1"], {"work": 6}),
        ],
        ids=str,
    )
    def test_options_narrow_the_view(
        self, options: list[str], expected: Mapping[str, int], command: Command, recording: Path
    ) -> None:
        assert self.flat(command("top", "--json", *options, recording)) == expected

    def test_shares_stay_those_of_the_whole(self, command: Command, recording: Path) -> None:
        result = command("top", "--focus", "idle", recording)

        assert "20ms, 22.22% of 90ms total" in result.out
        assert "   focus=idle" in result.out

    def test_a_filter_that_matches_nothing_is_remarked_on(self, command: Command, recording: Path) -> None:
        result = command("top", "--focus", "nonsense", recording)

        assert result.status == 0
        assert "--focus matched no sample" in result.err

    def test_another_sample_type(self, command: Command, recording: Path) -> None:
        assert "9 total" in command("top", "--sample-index", "samples", recording).out

    def test_another_unit(self, command: Command, recording: Path) -> None:
        assert "90000us total" in command("top", "--unit", "us", recording).out

    def test_a_difference_shows_what_grew_and_shrank(self, command: Command, recording: Path, tmp_path: Path) -> None:
        before = tmp_path / "before.pb.gz"
        before.write_bytes(pprof.write(profile_of({"main > work": 4, "main > idle": 5})))

        result = command("top", "--json", "--diff-base", before, recording)

        assert self.flat(result) == {"work": 2, "idle": -3, "\x1b[31mred": 1}
        assert result.json["total"] == 9 * PERIOD_NS


class TestMistakes:
    """Each with its own status, a reason and a hint; never a traceback."""

    @pytest.mark.parametrize(
        ("words", "status", "message", "hint"),
        [
            (["top", "--sample-index", "heap"], 2, "no sample type 'heap'", "it has: samples, cpu"),
            (["top", "--focus", "("], 2, "not a regular expression", ""),
            (["peek", "*"], 2, "not a regular expression", ""),
            (["peek", "wrok"], 1, "nothing in this profile matches 'wrok'", "nearest names: work"),
            (["list", "wrok"], 1, "nothing in this profile matches 'wrok'", "nearest names: work"),
            (["top", "--unit", "MB"], 2, "nanoseconds cannot be shown in 'MB'", "units are"),
            (["top", "--unit", "bananas"], 2, "cannot be shown in 'bananas'", "units are"),
            (["top", "--lines", "--files"], 2, "exclude each other", "choose one"),
            (["top", "--base", "a", "--diff-base", "b"], 2, "exclude each other", "--diff-base"),
            (["top", "--nodefraction", "nan"], 2, "not a share", "0 to 1"),
            (["tree", "--edgefraction", "2"], 2, "not a share", "0 to 1"),
            (["top", "-n", "-1"], 2, "-1", ""),
            (["top", "--base", "missing.pb.gz"], 5, "there is no file 'missing.pb.gz'", "pprofpy cpu"),
            (["export", "-o", "x.unknown"], 2, "which format", "--format"),
            (["export"], 2, "standard output has no suffix", "--format"),
            (["export", "-f", "pprof", "-o", "/nowhere/x"], 1, "cannot write", "mkdir -p /nowhere"),
        ],
        ids=str,
    )
    def test_options(
        self, words: list[str], status: int, message: str, hint: str, command: Command, recording: Path
    ) -> None:
        result = command(*words, recording)

        assert result.status == status
        assert message in result.err
        assert hint in result.err
        assert result.out == ""

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "empty"),
            (b"\x1f\x8b\x08", "damaged"),
            (b"\x00\x01\x02" * 50, "damaged"),
            (b"hello\n", "no profile in any format"),
            (b"{}", "speedscope"),
        ],
    )
    def test_files(self, content: bytes, message: str, command: Command, tmp_path: Path) -> None:
        (tmp_path / "bad").write_bytes(content)

        result = command("top", tmp_path / "bad")

        assert (result.status, result.out) == (5, "")
        assert message in result.err

    def test_a_file_with_a_bad_expression_of_its_own_is_still_shown(self, command: Command, tmp_path: Path) -> None:
        path = tmp_path / "x.pb.gz"
        path.write_bytes(pprof.write(replace(profile_of({"main": 1}), drop_frames="(")))

        result = command("top", path)

        assert result.status == 0
        assert "main" in result.out
        assert "not dropped" in result.err

    def test_profiles_of_different_kinds_are_not_summed_up(
        self, command: Command, recording: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "x.collapsed").write_text("a 1\n")

        result = command("top", recording, tmp_path / "x.collapsed")

        assert result.status == 2
        assert "different kinds" in result.err


class TestExport:
    """Profiles in other formats."""

    @pytest.mark.parametrize("name", ["x.pb.gz", "x.speedscope.json", "x.collapsed", "x.folded", "x.json"])
    def test_the_ending_names_the_format(self, name: str, command: Command, recording: Path, tmp_path: Path) -> None:
        result = command("export", "-o", tmp_path / name, "--focus", "work", recording)

        assert (result.status, result.out) == (0, "")
        assert f"wrote {tmp_path / name}" in result.err
        assert list(as_text(decode((tmp_path / name).read_bytes()))) == ["main > work"]

    def test_pprof_keeps_all_sample_types_unless_one_is_chosen(
        self, command: Command, recording: Path, tmp_path: Path
    ) -> None:
        command("export", "-o", tmp_path / "all.pb.gz", recording)
        command("export", "-o", tmp_path / "one.pb.gz", "--sample-index", "samples", recording)

        kinds = [[k.type for k in decode((tmp_path / n).read_bytes()).sample_types] for n in ("all.pb.gz", "one.pb.gz")]
        assert kinds == [["samples", "cpu"], ["samples"]]

    def test_the_sample_type_of_collapsed_stacks_can_be_chosen(
        self, command: Command, recording: Path, tmp_path: Path
    ) -> None:
        command("export", "-o", tmp_path / "x.collapsed", "--sample-index", "cpu", "--focus", "work", recording)

        assert (tmp_path / "x.collapsed").read_text() == f"main;work {6 * PERIOD_NS}\n"

    def test_somebody_elses_file_is_not_replaced(self, command: Command, recording: Path, tmp_path: Path) -> None:
        (tmp_path / "x.json").write_text("{}")

        assert command("export", "-o", tmp_path / "x.json", recording).status == 1
        assert (tmp_path / "x.json").read_text() == "{}"
        assert command("export", "-o", tmp_path / "x.json", "--force", recording).status == 0
        assert command("export", "-o", tmp_path / "x.json", recording).status == 0


class TestStreams:
    """Terminals, pipes and what else output goes to; these run as a process of their own."""

    def run(self, recording: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "pprofpy", *words, str(recording)],
            capture_output=True,
            check=False,
            env={**os.environ, **environment},
        )

    def on_terminal(self, recording: Path, *words: str, **environment: str) -> str:
        """What a terminal of 80 columns receives, on standard output and standard error."""
        output, terminal = pty.openpty()
        os.set_inheritable(terminal, True)
        process = subprocess.Popen(
            [sys.executable, "-m", "pprofpy", *words, str(recording)],
            stdout=terminal,
            stderr=terminal,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **environment},
        )
        os.close(terminal)
        received = b""
        try:
            while chunk := os.read(output, 65536):
                received += chunk
        except OSError:  # the terminal is gone with the process
            pass
        process.wait()
        os.close(output)
        return received.decode()

    def test_a_terminal_gets_colour(self, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_COLOR", raising=False)

        assert "\x1b[1;31m66.67%" in self.on_terminal(recording, "top")

    def test_no_color_is_honoured(self, recording: Path) -> None:
        assert "\x1b[1;31m" not in self.on_terminal(recording, "top", NO_COLOR="1")

    def test_a_terminal_gets_no_binary_file(self, recording: Path) -> None:
        assert "not for reading on a terminal" in self.on_terminal(recording, "export", "-f", "pprof")

    def test_a_pipe_gets_a_binary_file(self, recording: Path) -> None:
        done = self.run(recording, "export", "-f", "pprof")

        assert as_text(decode(done.stdout))["main > work"] == 6

    def test_an_encoding_that_lacks_a_letter_is_no_error(self, tmp_path: Path) -> None:
        path = tmp_path / "x.pb.gz"
        path.write_bytes(pprof.write(profile_of({"größe": 1, "🔥": 2})))

        for words in (["top"], ["top", "--json"], ["peek", "."]):
            done = self.run(path, *words, PYTHONIOENCODING="ascii")
            assert (done.returncode, done.stderr) == (0, b"")
            assert rb"gr\xf6\xdfe" in done.stdout or rb"gr\u00f6\u00dfe" in done.stdout

    @pytest.mark.parametrize("words", [["top"], ["traces"], ["top", "--json"], ["export", "-f", "pprof"]], ids=str)
    def test_a_full_disk_is_an_error_with_a_reason(self, words: list[str], recording: Path) -> None:
        with Path("/dev/full").open("wb") as full:
            command = [sys.executable, "-m", "pprofpy", *words, str(recording)]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

        assert done.returncode == 1
        assert done.stderr == (
            "pprofpy: cannot write to standard output: No space left on device\n  hint: free some space\n"
        )

    def test_a_reader_that_goes_away_is_no_error(self, tmp_path: Path) -> None:
        path = tmp_path / "large.pb.gz"
        path.write_bytes(pprof.write(profile_of({f"main > f{i}": 1 for i in range(5000)})))

        shell = f"{sys.executable} -m pprofpy traces {path} | head -1; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)

        assert (done.stdout.splitlines()[-1], done.stderr) == ("0", "")

    def test_closed_output_is_no_error(self, recording: Path) -> None:
        shell = f"{sys.executable} -m pprofpy top {recording} >&-"
        done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)

        assert (done.returncode, done.stderr) == (0, "")

    def test_views_load_no_collector(self, recording: Path) -> None:
        program = (
            "import sys; from pprofpy.cli.main import run; run(['top', sys.argv[1]]); "
            "sys.exit(any(name.startswith('pprofpy.collectors.') for name in sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", program, str(recording)], capture_output=True, check=False)

        assert done.returncode == 0


def test_recorded_events_are_not_written_to_a_terminal(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    result = command("trace", "-o", "-")

    assert result.status == 2
    assert "not for reading on a terminal" in result.err
