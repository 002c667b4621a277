"""Source with the cost of each line, and finding that source."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pprofpy.errors import PprofpyError
from pprofpy.formats import pprof
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Collection, Frame, Function
from pprofpy.reports import header
from pprofpy.reports import list as listing
from pprofpy.reports.list import Listing, Routine
from pprofpy.reports.source_finder import SourceFinder
from pprofpy.units import NS_PER_S
from tests.conftest import CommandLine
from tests.looks import assert_looks, piped
from tests.stacks import CPU_TYPES, PERIOD_NS

CODE = """\
import time

@decorated
def work(n):
    total = 0
    for i in range(n):
        total += i

    return total

class Server:
    def serve(self):
        return work(3)\t# \x1b[31mred
# the end
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "code.py"
    path.write_text(CODE)
    return path


Lister = Callable[..., Listing]


@pytest.fixture
def listed(code: Path) -> Lister:
    """List a profile in which work (lines 6 and 7) is called by Server.serve (line 13)."""

    def build(
        pattern: str = ".",
        file: str = str(code),
        sources: SourceFinder | None = None,
        time_ns: int = 0,
        start: int = 0,
        started_ns: int = -1,
    ) -> Listing:
        work, serve = Function("code.work", "work", file, start), Function("code.Server.serve", "serve", file)
        builder = ProfileBuilder(CPU_TYPES)
        for line, count in ((6, 10), (7, 30)):
            builder.add((Frame(work, line), Frame(serve, 13)), (count, count * PERIOD_NS))
        profile = replace(builder.build(), time_ns=time_ns, collection=Collection(started_ns=started_ns))
        about = header.build(profile, 1, profile.total(1))
        return listing.build(about, profile, 1, pattern, sources or SourceFinder(), "minimum")

    return build


def shown(routine: Routine) -> list[int]:
    return [line.number for line in routine.lines]


def costs(routine: Routine) -> dict[int, tuple[int, int]]:
    return {line.number: (line.flat // PERIOD_NS, line.cum // PERIOD_NS) for line in routine.lines if line.cum}


def test_each_line_has_its_flat_and_cum(listed: Lister) -> None:
    serve, work = listed().routines

    assert (serve.name, work.name) == ("code.Server.serve", "code.work")
    assert costs(work) == {6: (10, 10), 7: (30, 30)}
    assert costs(serve) == {13: (0, 40)}
    assert (serve.flat, serve.cum) == (0, 40 * PERIOD_NS)


def test_a_python_function_is_shown_from_its_decorator_to_its_end(listed: Lister) -> None:
    (work,) = listed("work").routines

    assert shown(work) == [3, 4, 5, 6, 7, 8, 9]
    assert work.lines[0].text == "@decorated"


def test_where_the_profile_knows_the_first_line_that_counts(listed: Lister) -> None:
    (work,) = listed("work", start=5).routines

    assert shown(work) == list(range(5, 10))


def test_source_that_does_not_parse_is_shown_around_the_costly_lines(listed: Lister, code: Path) -> None:
    code.write_text("\n".join(f"line {i} (" for i in range(1, 30)))

    (work,) = listed("work").routines

    assert shown(work) == list(range(1, 13))


def test_recursion_counts_once(code: Path) -> None:
    fib = Function("fib", "fib", str(code))
    builder = ProfileBuilder(CPU_TYPES)
    builder.add((Frame(fib, 5), Frame(fib, 7), Frame(fib, 7)), (10, 10 * PERIOD_NS))
    profile = builder.build()

    (routine,) = listing.build(
        header.build(profile, 1, profile.total(1)), profile, 1, "fib", SourceFinder(), ""
    ).routines

    assert costs(routine) == {5: (10, 10), 7: (0, 10)}
    assert routine.cum == 10 * PERIOD_NS


def test_no_match_names_what_is_near(listed: Lister) -> None:
    with pytest.raises(PprofpyError) as caught:
        listed("wrok")

    assert caught.value.hint == "nearest names: code.work"


class TestSource:
    """Where the source is looked for, and what is said of it."""

    def test_missing_source_still_shows_the_costly_lines(self, listed: Lister) -> None:
        (work,) = listed("work", "/nowhere/code.py").routines

        assert costs(work) == {6: (10, 10), 7: (30, 30)}
        assert [line.text for line in work.lines] == [None, None]
        assert "--source-path" in work.remarks[0]

    def test_a_profile_without_file_names_says_so(self, listed: Lister) -> None:
        (work,) = listed("work", "").routines

        assert work.remarks == ["the profile does not name the file"]

    @pytest.mark.parametrize("name", ["/build/app/code.py", "app/code.py", "/code.py"])
    def test_a_moved_file_is_found_by_the_end_of_its_path(self, listed: Lister, code: Path, name: str) -> None:
        (work,) = listed("work", name, SourceFinder([str(code.parent)])).routines

        assert work.remarks == [f"source: {code}"]
        assert shown(work) == [3, 4, 5, 6, 7, 8, 9]

    def test_the_longest_matching_path_wins(self, code: Path) -> None:
        nested = code.parent / "app" / "code.py"
        nested.parent.mkdir()
        nested.write_text("nested")

        source = SourceFinder([str(code.parent)]).find("/build/app/code.py")

        assert source is not None
        assert source.path == nested

    def test_a_prefix_can_be_cut_off(self, code: Path) -> None:
        source = SourceFinder([str(code.parent)], ["/build/x"]).find("/build/x/code.py")

        assert source is not None
        assert source.path == code
        assert SourceFinder([], ["/build"]).find("/builder/code.py") is None

    def test_a_path_cannot_climb_out_of_the_folder(self, code: Path, tmp_path: Path) -> None:
        (tmp_path / "inner").mkdir()

        source = SourceFinder([str(tmp_path / "inner")]).find("/x/../code.py")

        assert source is None

    def test_a_file_changed_after_the_recording_began_is_no_longer_what_ran(self, listed: Lister, code: Path) -> None:
        os.utime(code, ns=(2_000, 2_000))

        assert listed("work", time_ns=2_000).routines[0].remarks == []
        assert "changed after the recording" in listed("work", time_ns=1_999).routines[0].remarks[0]

    def test_a_file_changed_after_the_process_had_started_may_be_newer_than_the_code(
        self, listed: Lister, code: Path
    ) -> None:
        os.utime(code, ns=(5 * NS_PER_S, 5 * NS_PER_S))

        before = listed("work", time_ns=9 * NS_PER_S, started_ns=6 * NS_PER_S)
        after = listed("work", time_ns=9 * NS_PER_S, started_ns=4 * NS_PER_S)

        assert before.routines[0].remarks == []
        assert "changed after the process had started" in after.routines[0].remarks[0]
        assert after.routines[0].lines == before.routines[0].lines

    def test_lines_that_are_no_longer_the_functions_are_not_shown(self, listed: Lister, code: Path) -> None:
        code.write_text("# new\n" * 20 + code.read_text())
        os.utime(code, ns=(5 * NS_PER_S, 5 * NS_PER_S))

        (work,) = listed("work", time_ns=9 * NS_PER_S, started_ns=4 * NS_PER_S).routines

        assert work.remarks == [
            "warning: the file was changed, and this function is at other lines now: they are not shown"
        ]
        assert [(line.number, line.text) for line in work.lines] == [(6, None), (7, None)]

    def test_a_file_that_is_too_short_is_another_one(self, listed: Lister, code: Path) -> None:
        code.write_text("x = 1\n")

        (work,) = listed("work").routines

        assert "not the one that was running" in work.remarks[0]
        assert {line.number: line.text for line in work.lines if line.cum} == {6: None, 7: None}

    def test_a_relative_path_is_not_looked_for_in_our_own_folder(
        self, code: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(code.parent)

        assert SourceFinder().find("code.py") is None
        assert SourceFinder(["."]).find("code.py") is not None

    @pytest.mark.parametrize(
        "name",
        ["/dev/zero", "/dev/stdin", "/proc/self", "/proc/self/environ", "/proc/keys", "/proc/kmsg", "/proc/version",
         "/sys/kernel/notes", "/proc/self/root/proc/version", "a\0b", "<string>", "x" * 5000],
    )  # fmt: skip
    def test_what_is_no_plain_file_is_not_read(self, name: str) -> None:
        assert SourceFinder().find(name) is None

    def test_any_encoding_and_line_end_will_do(self, tmp_path: Path) -> None:
        path = tmp_path / "old.py"
        path.write_bytes(b"# -*- coding: latin-1 -*-\r\n# gr\xf6\xdfe\r\nx = 1")

        source = SourceFinder().find(str(path))

        assert source is not None
        assert source.lines == ["# -*- coding: latin-1 -*-", "# größe", "x = 1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to read what others cannot")
class TestOthersProfiles:
    """As root, a profile of another user's: it names any file that it likes."""

    USERS = frozenset({65534})

    @pytest.fixture
    def shared(self) -> Iterator[Path]:
        """A folder that everybody can enter."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            yield Path(folder)

    def test_only_what_its_owner_could_read_is_read(self, shared: Path) -> None:
        public, private = shared / "public.py", shared / "private.py"
        for path, mode in ((public, 0o644), (private, 0o600)):
            path.write_text("secret = 1\n")
            path.chmod(mode)
        finder = SourceFinder(users=self.USERS)

        assert finder.find(str(public)) is not None
        assert finder.find(str(private)) is None
        assert finder.find("/etc/shadow") is None
        assert SourceFinder().find(str(private)) is not None
        assert private.read_text()  # we have our own rights again

    def test_what_the_user_names_is_read(self, shared: Path) -> None:
        (shared / "private.py").write_text("x = 1\n")
        (shared / "private.py").chmod(0o600)

        assert SourceFinder([str(shared)], users=self.USERS).find("/srv/private.py") is not None

    def test_no_link_leads_out_of_the_folder_that_the_user_names(self, shared: Path) -> None:
        inside, outside = shared / "inside", shared / "outside"
        for folder in (inside, outside):
            folder.mkdir()
        (outside / "a.py").write_text("secret = 1\n")
        (outside / "a.py").chmod(0o600)
        (inside / "a.py").symlink_to(outside / "a.py")
        (inside / "sub").symlink_to(outside)
        for link in (inside / "a.py", inside / "sub"):
            os.chown(link, 65534, 65534, follow_symlinks=False)
        finder = SourceFinder([str(inside)], users=self.USERS)

        assert finder.find("/srv/a.py") is None
        assert finder.find("/srv/sub/a.py") is None

    def test_the_file_itself_tells_whose_profile_it_is(self, cli: CommandLine, shared: Path) -> None:
        secret, profile = shared / "secret.py", shared / "cpu.pb.gz"
        secret.write_text("password = 'hunter2'\n")
        secret.chmod(0o600)
        builder = ProfileBuilder(CPU_TYPES)
        builder.add((Frame(Function("f", "f", str(secret)), 1),), (1, PERIOD_NS))
        profile.write_bytes(pprof.write(builder.build()))
        assert "hunter2" in cli("list", ".", str(profile)).stdout

        os.chown(profile, 65534, 65534)
        done = cli("list", ".", str(profile))

        assert (done.returncode, done.stderr) == (0, "")
        assert "hunter2" not in done.stdout
        assert "source not found" in done.stdout
        with profile.open("rb") as stream:
            words = [sys.executable, "-m", "pprofpy", "list", ".", "-"]
            piped = subprocess.run(words, stdin=stream, capture_output=True, check=True)
        assert b"hunter2" not in piped.stdout


def test_looks(listed: Lister, code: Path) -> None:
    text = piped(lambda console: listing.render(listed(), console))

    assert_looks(text.replace(str(code), "/srv/code.py"), "list.txt")
    assert_looks(piped(lambda console: listing.render(listed(file="/no/code.py"), console)), "list.missing.txt")


def test_json_has_the_text_as_it_is(listed: Lister) -> None:
    (serve,) = listing.to_json(listed("serve"))["routines"]

    assert serve["lines"][-1] == {
        "line": 13,
        "flat": 0,
        "cum": 40 * PERIOD_NS,
        "text": "        return work(3)\t# \x1b[31mred",
    }
