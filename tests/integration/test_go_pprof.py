"""Our views against `go tool pprof`: the same profile gives the same text, whoever made it and whoever reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain, permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pprofpy.cli.main import run
from pprofpy.formats import pprof
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Collection, Frame, Function, Label, Line, Location, Profile
from tests import go_pprof
from tests.stacks import CPU_TYPES, PERIOD_NS, profile_of

Command = Callable[..., list[str]]


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Profiles made by Go's own runtime."""
    folder = tmp_path_factory.mktemp("go-program")
    cpu, heap = go_pprof.make_profiles(folder)
    later = tmp_path_factory.mktemp("go-program-again")
    return {"cpu": cpu, "heap": heap, "later": go_pprof.make_profiles(later)[0]}


@pytest.fixture
def ours(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run pprofpy; returns what it prints, line by line."""

    def command(*arguments: object) -> list[str]:
        assert run(list(map(str, arguments))) == 0
        return stripped(capsys.readouterr().out)

    return command


@pytest.fixture
def theirs(tmp_path: Path) -> Command:
    """Run `go tool pprof`; returns what it prints, line by line."""

    def command(*arguments: object) -> list[str]:
        return stripped(go_pprof.pprof(tmp_path, *map(str, arguments)).stdout)

    return command


def stripped(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def with_spaces(lines: list[str]) -> list[str]:
    """Lines of Go's listing with the source's tabs as we show them: no control character gets to a terminal."""
    split = [line.partition(":") for line in lines]
    return [head + colon + text.expandtabs() for head, colon, text in split]


class TestGoMadeProfiles:
    """What Go's runtime recorded looks the same in both."""

    @pytest.mark.parametrize(
        "options",
        [
            [],
            ["cum"],
            ["lines"],
            ["lines", "cum"],
            ["nodefraction=0"],
            ["nodefraction=0.2"],
            ["focus=fib"],
            ["ignore=fib"],
            ["show=main"],
            ["hide=main.main"],
            ["show_from=main.main"],
            ["unit=us"],
            ["sample_index=samples"],
        ],
        ids=" ".join,
    )
    def test_top_of_cpu(self, options: list[str], recordings: dict[str, Path], ours: Command, theirs: Command) -> None:
        mine = [f"--{option.replace('_', '-', 1)}" for option in options]

        assert ours("top", "-n", 0, *mine, recordings["cpu"]) == theirs(
            "-top", *(f"-{option}" for option in options), recordings["cpu"]
        )

    def test_top_with_a_row_limit_adds_only_how_to_see_more(
        self, recordings: dict[str, Path], ours: Command, theirs: Command
    ) -> None:
        *table, last = ours("top", "-n", 2, recordings["cpu"])

        assert table == theirs("-top", "-nodecount=2", recordings["cpu"])
        assert last.endswith("-N 0 shows all")

    @pytest.mark.parametrize("kind", ["inuse_space", "inuse_objects", "alloc_space", "alloc_objects"])
    def test_top_of_heap(self, kind: str, recordings: dict[str, Path], ours: Command, theirs: Command) -> None:
        assert ours("top", "-n", 0, "--sample-index", kind, recordings["heap"]) == theirs(
            "-top", f"-sample_index={kind}", recordings["heap"]
        )

    @pytest.mark.parametrize("option", ["base", "diff_base"])
    def test_differences(self, option: str, recordings: dict[str, Path], ours: Command, theirs: Command) -> None:
        table = ours("top", "-n", 0, f"--{option.replace('_', '-')}", recordings["cpu"], recordings["later"])
        reference = theirs("-top", f"-{option}={recordings['cpu']}", recordings["later"])

        assert without_header(table) == without_header(reference)

    @pytest.mark.parametrize("kind", ["cpu", "heap"])
    @pytest.mark.parametrize("options", [[], ["--cum"], ["--lines"]], ids=str)
    def test_tree(
        self, kind: str, options: list[str], recordings: dict[str, Path], ours: Command, theirs: Command
    ) -> None:
        assert ours("tree", *options, recordings[kind]) == theirs(
            "-tree", *(option[1:] for option in options), recordings[kind]
        )

    @pytest.mark.parametrize("kind", ["cpu", "heap"])
    @pytest.mark.parametrize("pattern", ["main", "fib|alloc", "."])
    def test_peek(self, kind: str, pattern: str, recordings: dict[str, Path], ours: Command, theirs: Command) -> None:
        assert ours("peek", pattern, recordings[kind]) == theirs(f"-peek={pattern}", recordings[kind])

    @pytest.mark.parametrize("kind", ["cpu", "heap"])
    def test_list(self, kind: str, recordings: dict[str, Path], ours: Command, theirs: Command) -> None:
        pattern = "main.(burn|allocate|main)"

        assert ours("list", pattern, recordings[kind]) == with_spaces(theirs(f"-list={pattern}", recordings[kind]))

    def test_list_counts_recursion_once_where_go_adds_up_the_lines(
        self, recordings: dict[str, Path], ours: Command, theirs: Command
    ) -> None:
        mine, go = ours("list", "fib", recordings["cpu"]), with_spaces(theirs("-list=fib", recordings["cpu"]))
        (row,) = [line.split() for line in theirs("-top", recordings["cpu"]) if line.endswith("main.fib")]

        assert mine[2].split()[:2] == [row[0], row[3]]
        assert (mine[:2], mine[3:]) == (go[:2], go[3:])

    def test_traces(self, recordings: dict[str, Path], ours: Command, theirs: Command) -> None:
        """Ours come costliest first, so the order differs."""
        mine, go = ours("traces", recordings["cpu"]), theirs("-traces", recordings["cpu"])

        assert sorted(blocks(mine)) == sorted(blocks(go))
        assert len(blocks(mine)) > 2

    def test_what_we_export_is_the_same_profile(
        self, recordings: dict[str, Path], ours: Command, theirs: Command, tmp_path: Path
    ) -> None:
        ours("export", "--ignore", "fib", "-o", tmp_path / "copy.pb.gz", recordings["cpu"])

        filtered = theirs("-top", "-ignore=fib", recordings["cpu"])
        assert rows(theirs("-top", tmp_path / "copy.pb.gz"), 0, 3) == rows(filtered, 0, 3)


def without_header(lines: list[str]) -> list[str]:
    return lines[next(i for i, line in enumerate(lines) if line.startswith("Showing nodes")) :]


def blocks(lines: list[str]) -> list[str]:
    """The parts of a traces report, each a stack."""
    return "\n".join(lines).split("-----------+-------------------------------------------------------")


def rows(lines: list[str], *columns: int) -> dict[str, list[str]]:
    """Name -> the chosen columns of a top table."""
    start = next(i for i, line in enumerate(lines) if line.lstrip().startswith("flat")) + 1
    return {" ".join(row[5:]): [row[column] for column in columns] for row in map(str.split, lines[start:])}


class TestPythonProfiles:
    """What we record and write, Go reads without a murmur."""

    source = "def inner():\n    total = 0\n    return total  # hot\n\n\ndef outer():\n    return inner()\n"

    @pytest.fixture
    def recording(self, tmp_path: Path) -> Path:
        """Three seconds in inner (line 3), called by outer (line 7), and one in outer itself."""
        code = tmp_path / "service.py"
        code.write_text(self.source)
        outer, inner = (Function(f"service.{name}", name, str(code)) for name in ("outer", "inner"))
        builder = ProfileBuilder(CPU_TYPES)
        labels = (Label("thread", "MainThread"), Label("tid", 4242))
        builder.add((Frame(inner, 3), Frame(outer, 7)), (300, 300 * PERIOD_NS), labels)
        builder.add((Frame(outer, 6),), (100, 100 * PERIOD_NS), labels)
        profile = replace(
            builder.build(),
            period_type=CPU_TYPES[1],
            period=PERIOD_NS,
            time_ns=code.stat().st_mtime_ns + 1,
            duration_ns=5_000_000_000,
            collection=Collection("hand", "pid 1", asked=500, got=400, late=100),
        )
        path = tmp_path / "python.pb.gz"
        path.write_bytes(pprof.write(profile))
        return path

    @pytest.mark.parametrize("view", ["-top", "-list=.", "-peek=.", "-tree", "-traces", "-raw", "-weblist=."])
    def test_go_has_nothing_to_complain_about(self, view: str, recording: Path, tmp_path: Path) -> None:
        output = ["-output", str(tmp_path / "out")] if "web" in view else []

        complaints = go_pprof.pprof(tmp_path, view, *output, str(recording)).stderr.splitlines()

        assert [line for line in complaints if not line.startswith("Generating report in")] == []

    def test_go_prints_our_table_save_what_was_lost(self, recording: Path, ours: Command, theirs: Command) -> None:
        table = ours("top", recording)

        assert "Samples: about 500 expected, 400 taken, 100 late" in table
        assert [line for line in table if not line.startswith(("Samples:", "Recorded:"))] == theirs("-top", recording)

    def test_go_lists_the_source_with_our_values(self, recording: Path, ours: Command, theirs: Command) -> None:
        def costly(lines: list[str]) -> list[list[str]]:
            return [line.split(maxsplit=3) for line in lines if "return" in line and line.split()[1] != "."]

        listing = ours("list", ".", recording)

        assert costly(listing) == costly(theirs("-list=.", recording))
        assert costly(listing) == [["3s", "3s", "3:", "return total  # hot"], [".", "3s", "7:", "return inner()"]]

    def test_the_web_listing_holds_the_source(self, recording: Path, tmp_path: Path) -> None:
        go_pprof.pprof(tmp_path, "-weblist=.", "-output", str(tmp_path / "list.html"), str(recording))

        html = (tmp_path / "list.html").read_text()
        assert "return total  # hot" in html
        assert "def outer():" in html

    def test_frames_to_be_dropped_are_dropped(self, tmp_path: Path, ours: Command, theirs: Command) -> None:
        """Allocators name themselves and what they call as noise; their callers then show as the cost."""
        stacks = {"main > work > malloc > sys_alloc": 5, "main > malloc_ish": 2, "malloc > free": 1, "main": 1}
        path = tmp_path / "noisy.pb.gz"
        path.write_bytes(pprof.write(replace(profile_of(stacks), drop_frames="malloc.*", keep_frames="malloc_ish")))

        table = ours("top", path)

        assert table == theirs("-top", path)
        assert rows(table, 0) == {
            "work": ["50ms"],
            "malloc_ish": ["20ms"],
            "free": ["10ms"],
            "main": ["10ms"],
            "malloc": ["0"],
        }

    def test_threads_are_tags(self, recording: Path, theirs: Command) -> None:
        tags = " ".join(" ".join(theirs("-tags", recording)).split())

        assert "thread: Total 4s of 4s" in tags
        assert "4s ( 100%): MainThread" in tags


names = st.sampled_from(["main", "a.b", "a.c", "λ", "<module>", "x y", "z" * 40])
stacks = st.lists(st.tuples(names, st.integers(0, 3)), min_size=1, max_size=6)
samples = st.lists(st.tuples(stacks, st.integers(1, 10**6), st.integers(1, 10**12)), min_size=1, max_size=8)


def random_profile(drawn: list[tuple[list[tuple[str, int]], int, int]]) -> Profile:
    builder = ProfileBuilder(CPU_TYPES)
    for stack, count, value in drawn:
        builder.add([Frame(Function(name, "", f"/srv/{name}.py"), line) for name, line in stack], (count, value))
    return builder.build()


COMPARED = settings(
    max_examples=10, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@COMPARED
@given(samples, st.sampled_from([[], ["lines"], ["cum"], ["nodefraction=0.1"]]))
def test_any_profile_gives_the_same_table(
    tmp_path: Path,
    ours: Command,
    theirs: Command,
    drawn: list[tuple[list[tuple[str, int]], int, int]],
    options: list[str],
) -> None:
    path = tmp_path / "random.pb.gz"
    path.write_bytes(pprof.write(random_profile(drawn)))

    table = ours("top", "-n", 0, *(f"--{option}" for option in options), path)
    assert table == theirs("-top", *(f"-{option}" for option in options), path)
    assert ours("tree", path) == theirs("-tree", path)


PLACES = [*((name,) for name in range(4)), (1, 0), (2, 1), (3, 1), (2, 1, 0)]
"""Functions by number, each inlined into the next."""
CALLS = [
    stack
    for depth in (1, 2, 3)
    for stack in permutations(PLACES, depth)
    if len({*chain(*stack)}) == len([*chain(*stack)])  # no recursion: Go takes the mark of the outermost call for all
]
inlined_samples = st.lists(st.tuples(st.sampled_from(CALLS), st.integers(1, 3)), max_size=5)


def inlined_profile(drawn: list[tuple[tuple[tuple[int, ...], ...], int]]) -> Profile:
    builder = ProfileBuilder(CPU_TYPES)
    functions = [
        builder.function(Function(name, name, f"/srv/{name}.go")) for name in ("main", "burn", "square", "fib")
    ]
    places = {names: builder.location(Location(tuple(Line(functions[name]) for name in names))) for names in PLACES}
    for stack, count in drawn:
        builder.add_locations(tuple(places[names] for names in stack), (count, count * PERIOD_NS))
    return builder.build()


@COMPARED
@given(inlined_samples, inlined_samples, st.sampled_from(["base", "diff_base"]), st.sampled_from([0, 0.2]))
def test_any_difference_gives_the_same_table(
    tmp_path: Path,
    ours: Command,
    theirs: Command,
    base: list[tuple[tuple[tuple[int, ...], ...], int]],
    later: list[tuple[tuple[tuple[int, ...], ...], int]],
    option: str,
    fraction: float,
) -> None:
    """Of few samples with inlined calls, so that much cancels out."""
    for name, drawn in (("base", base), ("later", later)):
        (tmp_path / name).write_bytes(pprof.write(inlined_profile(drawn)))

    table = ours(
        "top",
        "-n",
        0,
        "--nodefraction",
        fraction,
        f"--{option.replace('_', '-')}",
        tmp_path / "base",
        tmp_path / "later",
    )
    reference = theirs("-top", f"-nodefraction={fraction}", f"-{option}={tmp_path / 'base'}", tmp_path / "later")
    if table[-1] == "There is no sample in it.":
        assert without_header(reference)[2:] == []
    else:
        assert without_header(table) == without_header(reference)
