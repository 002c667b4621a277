"""What the documents say is so: the help is current, links lead somewhere, every command has a page and an example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import pprofpy
from pprofpy.cli.main import COMMANDS, run

ROOT = Path(pprofpy.__file__).parent.parent
PAGES = ROOT / "docs" / "commands"
DOCUMENTS = sorted(
    path for folder in (".", "docs", "docs/commands", "examples") for path in (ROOT / folder).glob("*.md")
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
PPROFPY_LINE = re.compile(r"^(?: {4}|\$ | {4}\$ )pprofpy ([a-z-]+)", re.MULTILINE)


def test_the_help_in_the_pages_is_current() -> None:
    script = ROOT / "scripts" / "command_docs.py"

    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme_and_has_a_page_with_an_example(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text()

    assert f"pprofpy {name}" in (ROOT / "README.md").read_text()
    assert "\n## Example\n" in page
    assert len(page.partition("\n## Example\n")[2].splitlines()) > 5


def test_no_page_is_left_of_a_command_that_is_gone() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(COMMANDS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    broken = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]

    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_shown_exist(document: Path) -> None:
    shown = set(PPROFPY_LINE.findall(document.read_text()))

    assert shown <= set(COMMANDS)


def test_the_exit_statuses_in_the_readme_are_those_of_the_errors() -> None:
    from pprofpy import errors

    readme = (ROOT / "README.md").read_text()
    listed = {int(status) for status in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    possible = {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}

    assert listed == possible | {0}


def test_the_doctor_is_where_the_readme_sends_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--help"]) == 0
    assert "--pid" in capsys.readouterr().out
