"""What doctor says of a Python and the ways to read it."""

from __future__ import annotations

import pytest

from pprofpy.collectors import doctor
from pprofpy.collectors.pyspy import executable, known_pythons
from pprofpy.errors import NotPossibleError


@pytest.mark.parametrize(
    ("pyspy", "python", "doubt"),
    [
        ("py-spy 0.4.3", "3.14.0", ""),
        ("py-spy 0.4.2", "3.14", ""),
        ("py-spy 0.4.1", "3.14.2", "py-spy 0.4.1 knows 3.3 to 3.13, no free-threaded builds"),
        ("py-spy 0.4.0", "3.13.1", ""),
        ("py-spy 0.3.14", "3.12.0", "py-spy 0.3.14 knows 3.3 to 3.11, no free-threaded builds"),
        ("py-spy 0.5.0", "3.15.0", "py-spy 0.5.0 knows 3.3 to 3.14, no free-threaded builds"),
        ("py-spy 0.4.3", "3.2", "py-spy 0.4.3 knows 3.3 to 3.14, no free-threaded builds"),
        ("py-spy 0.3.3", "3.8.1", "which Pythons py-spy 0.3.3 knows is not known"),
        ("py-spy of a strange make", "3.8.1", "which Pythons py-spy of a strange make knows is not known"),
        ("py-spy 0.4.3", "", ""),
    ],
)
def test_which_pythons_are_known_depends_on_the_py_spy_that_is_installed(
    pyspy: str, python: str, doubt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executable, "version", lambda: pyspy)

    assert known_pythons.doubt(python) == doubt


def test_without_py_spy_there_is_nothing_to_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise NotPossibleError("py-spy is not installed")

    monkeypatch.setattr(executable, "version", missing)

    assert known_pythons.doubt("3.99") == ""


OK, FAILED, WARNING = doctor.Verdict.OK, doctor.Verdict.FAILED, doctor.Verdict.WARNING


@pytest.mark.parametrize(
    ("walk", "trial", "works", "told"),
    [(OK, OK, True, OK), (OK, FAILED, True, WARNING), (WARNING, OK, True, OK), (WARNING, FAILED, False, FAILED)],
)
def test_cpu_works_if_one_of_both_ways_to_read_stacks_does(
    walk: doctor.Verdict, trial: doctor.Verdict, works: bool, told: doctor.Verdict
) -> None:
    """As for a program whose file an upgrade has replaced, or one of 5,000 threads: py-spy alone fails."""
    checks = doctor._of_cpu(
        doctor.Check("its stacks", walk, "", needed_for="stacks"), doctor.Check("a trial", trial, "", needed_for="cpu")
    )

    assert (doctor.cpu_works(list(checks)), checks[1].verdict) == (works, told)
