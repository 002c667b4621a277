"""The command's frame: help, fast start, and the one place where errors become messages."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pprofpy import errors
from pprofpy.cli import main
from pprofpy.errors import PprofpyError


def fail_with(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Run the command line with a subcommand that raises."""

    def run(error: BaseException) -> int:
        group = click.Group("pprofpy", commands=[click.Command("fail", callback=fail_with(error))])
        monkeypatch.setattr(main, "pprofpy", group)
        return main.run(["fail"])

    return run


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.PprofpyError, 1),
        (errors.UsageError, 2),
        (errors.TargetError, 3),
        (errors.NotPossibleError, 4),
        (errors.TargetPermissionError, 4),
        (errors.ProfileFormatError, 5),
        (errors.OutputError, 1),
        (errors.InterruptedEarly, 130),
    ],
)
def test_each_error_ends_in_its_status_and_says_what_to_do(
    kind: type[PprofpyError],
    status: int,
    failing: Callable[[BaseException], int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert failing(kind("it broke", "mend it")) == status
    assert capsys.readouterr() == ("", "pprofpy: it broke\n  hint: mend it\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["cpu", "--pid", "abc"], "invalid value for '-p' / '--pid': 'abc' is not a valid integer"),
        (["top", "--nodecont"], "no such option '--nodecont'"),
        (["flame"], "no such command 'flame'"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_an_error_like_any_other(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(words) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"pprofpy: {said}")
    assert re.search(r"\n  hint: 'pprofpy( \w+)? --help' lists what there is\n$", err)


def test_every_error_of_the_tree_has_a_status_of_its_own_kind() -> None:
    def all_below(kind: type[PprofpyError]) -> list[type[PprofpyError]]:
        return [kind, *(found for sub in kind.__subclasses__() for found in all_below(sub))]

    assert {kind.exit_code for kind in all_below(PprofpyError)} == {1, 2, 3, 4, 5, 130}


def test_ctrl_c_before_anything_was_recorded_is_130(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(KeyboardInterrupt()) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_wrong_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--nonsense"]) == 2
    assert "--nonsense" in capsys.readouterr().err


def test_a_wrong_command_suggests_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["flamegrph"]) == 2
    assert "flamegraph" in capsys.readouterr().err


def test_version_and_help_import_neither_rich_nor_numpy_nor_a_collector() -> None:
    """They are what shells complete and packagers test: they must not cost half a second."""
    program = (
        "import sys; from pprofpy.cli.main import run; status = run([sys.argv[1]]); "
        "heavy = {'rich', 'numpy', 'psutil'} & set(sys.modules); "
        "heavy |= {name for name in sys.modules if name.startswith(('pprofpy.collectors.', 'pprofpy.reports.'))}; "
        "sys.exit(f'imported: {heavy}' if heavy else status)"
    )
    for option in ("--version", "--help"):
        done = subprocess.run([sys.executable, "-c", program, option], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_help_imports_nothing_of_pythons_own_that_takes_time() -> None:
    """It takes at most 1.2 times as long as importing click, which benchmarks/bench_startup.py measures."""
    program = (
        "import sys, click; before = set(sys.modules); from pprofpy.__main__ import main; import os; "
        "os._exit = lambda _: print(*(set(sys.modules) - before), file=sys.stderr); sys.argv[1:] = ['--help']; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "pprofpy.cli.main" in done.stderr.split()
    for name in ("ctypes", "difflib", "json", "pathlib", "signal", "traceback"):
        assert name not in done.stderr.split()


def test_a_reader_that_goes_away_is_no_error() -> None:
    shell = f"{sys.executable} -m pprofpy --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.stderr) == ("0", "")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "out of memory"),
        (ImportError("libx.so: failed to map segment from shared object"), "out of memory"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "/x"), "too many open files"),
        (RecursionError("maximum recursion depth exceeded"), "unexpected error: RecursionError: maximum"),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "/x"), "unexpected error: PermissionError: "),
        (KeyError("\x1b[2J\u202e"), r"unexpected error: KeyError: '\x1b[2J\u202e'"),
        (ValueError("a\nTraceback"), "unexpected error: ValueError: a (test_main.py:"),
    ],
    ids=repr,
)
def test_any_other_error_becomes_one_of_ours(
    error: Exception, reason: str, failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(error) == 1

    message, hint, end = capsys.readouterr().err.split("\n")
    assert message.startswith(f"pprofpy: {reason}")
    assert hint.startswith("  hint: ")
    assert end == ""


def test_the_traceback_can_be_had(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPROFPY_DEBUG", "1")

    assert failing(KeyError("\x1b")) == 1

    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):\n")
    assert "\x1b" not in shown


def test_what_the_user_typed_wrong_is_printed_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["top", "--\x1b[2J\u202e"]) == 2

    assert r"--\x1b[2J\u202e" in capsys.readouterr().err


def test_only_the_console_writes_to_the_standard_streams() -> None:
    """There, all that others chose is made harmless: nobody can forget it."""
    folder = Path(main.__file__).parents[1]
    # The text of JSON is made there; the child that demangles answers on its standard output, a pipe.
    exempt = {Path("cli/console.py"), Path("reports/text.py"), Path("text.py"), Path("collectors/unwind/demangle.py")}
    written = re.compile(
        r"click\.echo|\.secho|console\.(?:print|out)\(|(?<![.\w])(?<!def )print\("
        r"|sys\.std(?:out|err)(?:\.buffer)?\.write|json\.dumps\(.*indent"
    )
    found = [
        f"{path.relative_to(folder)}:{number}"
        for path in folder.rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if written.search(line) and path.relative_to(folder) not in exempt
    ]

    assert found == []
