"""A real browser: Debian's Chromium, without a window, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test if a script of it breaks, or if anything in it opens a dialog."""
    opened = browser.new_page(viewport={"width": 1200, "height": 800})
    trouble: list[str] = []
    opened.on("pageerror", lambda error: trouble.append(f"script error: {error}"))

    def note_dialog(dialog: object) -> None:
        trouble.append("a dialog was opened")

    opened.on("dialog", note_dialog)
    yield opened
    opened.close()
    assert trouble == []
