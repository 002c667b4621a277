"""The flame graph in a real browser: search, zoom, reset, details, hostile names."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from pprofpy.model.profile import Profile
from pprofpy.reports import flamegraph
from tests.stacks import profile_of
from tests.unit.test_flamegraph import HOSTILE, flame_of, named

PROFILE = profile_of(
    {
        "main > load > parse_json": 20,
        "main > load > parse_json > parse_json_list": 10,
        "main > load": 10,
        "main > render": 40,
        "idle > parse_nothing": 20,
    }
)


@pytest.fixture
def show(page: Page, tmp_path: Path) -> Page:
    """The page with the flame graph of PROFILE open."""
    return open_svg(page, PROFILE, tmp_path)


def open_svg(page: Page, profile: Profile, folder: Path) -> Page:
    path = folder / "flame.svg"
    path.write_text(flamegraph.render(flame_of(profile)))
    page.goto(path.as_uri())
    return page


def frames(page: Page, css: str = "") -> dict[str, float]:
    """Visible frames (with this CSS condition) -> their width on the screen in percent of the window's, rounded."""
    found: dict[str, float] = page.evaluate(
        """css => Object.fromEntries(
            Array.from(document.querySelectorAll(`#frames > g:not(.hidden)${css}`), g => [
                g.querySelector('title').textContent.split('\\n')[0],
                Math.round(100 * g.querySelector('rect').getBoundingClientRect().width / window.innerWidth)]))""",
        css,
    )
    return found


def click(page: Page, name: str) -> None:
    page.locator("#frames > g", has=page.locator("title", has_text=name)).first.locator("rect").click()


def matched(page: Page) -> str:
    return page.locator("#result").text_content() or ""


def test_the_picture_fills_the_window_and_follows_its_size(show: Page) -> None:
    assert frames(show) == {
        "all": 100,
        "main": 80,
        "load": 40,
        "parse_json": 30,
        "parse_json_list": 10,
        "render": 40,
        "idle": 20,
        "parse_nothing": 20,
    }
    show.set_viewport_size({"width": 600, "height": 800})
    show.wait_for_function("document.documentElement.getAttribute('width') < 601")
    assert frames(show)["main"] == 80


def test_a_click_zooms_into_a_frame_and_its_callers_stay(show: Page) -> None:
    click(show, "load")

    assert frames(show) == {"all": 100, "main": 100, "load": 100, "parse_json": 75, "parse_json_list": 25}
    assert set(frames(show, ".above")) == {"all", "main"}


@pytest.mark.parametrize("way", ["button", "Escape", "root"])
def test_zoom_is_reset(show: Page, way: str) -> None:
    whole = frames(show)
    click(show, "load")
    assert frames(show) != whole

    if way == "button":
        show.locator("#reset").click()
    elif way == "Escape":
        show.keyboard.press("Escape")
    else:
        click(show, "all")

    assert frames(show) == whole
    assert show.locator("#reset").is_hidden()


def test_search_highlights_what_matches_and_counts_a_stack_once(show: Page) -> None:
    show.fill("#search", "parse_json")

    assert set(frames(show, ".match")) == {"parse_json", "parse_json_list"}
    assert matched(show) == "30.00 % matched"


def test_search_takes_a_regular_expression_and_minds_case_only_if_asked(show: Page) -> None:
    show.fill("#search", "^(RENDER|Idle)$")
    assert set(frames(show, ".match")) == set()

    show.fill("#search", "^(render|idle)$")
    assert set(frames(show, ".match")) == {"render", "idle"}
    assert matched(show) == "60.00 % matched"


def test_an_unfinished_expression_is_marked_and_harmless(show: Page) -> None:
    show.fill("#search", "(load")

    assert show.locator("#search.wrong").count() == 1
    assert frames(show, ".match") == {}


def test_clearing_the_search_ends_it(show: Page) -> None:
    show.fill("#search", "load")
    show.locator("#search").press("Escape")

    assert matched(show) == ""
    assert show.locator("#frames.searching").count() == 0


def test_within_a_zoom_the_share_is_of_the_zoomed_frame(show: Page) -> None:
    show.fill("#search", "parse")
    click(show, "load")

    assert matched(show) == "75.00 % matched"


def test_the_keyboard_finds_the_search_box(show: Page) -> None:
    show.keyboard.press("/")
    show.keyboard.type("render")

    assert set(frames(show, ".match")) == {"render"}


def test_pointing_at_a_frame_tells_about_it(show: Page) -> None:
    show.locator("#frames > g", has=show.locator("title", has_text="render")).locator("rect").hover()

    assert show.locator("#details").text_content() == "render   /srv/render.py   400ms, 40.00% of everything"


def test_no_text_runs_over_its_frame(show: Page) -> None:
    wider: list[str] = show.evaluate(
        """() => Array.from(document.querySelectorAll('#frames > g'), g => {
            const [text, rect] = [g.querySelector('text'), g.querySelector('rect')];
            const over = text.getBoundingClientRect().right - rect.getBoundingClientRect().right;
            return text.textContent && over > 0.5 ? text.textContent : null;
        }).filter(text => text)"""
    )
    assert wider == []


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_stays_text(page: Page, tmp_path: Path, name: str) -> None:
    open_svg(page, named(name), tmp_path)
    page.locator("#frames > g").last.locator("rect").hover()
    page.locator("#frames > g").last.locator("rect").click()
    page.fill("#search", "script")

    assert page.locator("script").count() == 1
    assert page.evaluate("document.querySelectorAll('[onload]').length") == 0
    assert page.locator("#frames > g").count() == 2


def test_the_famous_script_is_shown_as_it_is(page: Page, tmp_path: Path) -> None:
    open_svg(page, named("<script>alert(1)</script>"), tmp_path)

    assert page.locator("#frames > g text").last.text_content() == "<script>alert(1)</script>"


def test_it_looks_right_as_an_image_where_no_script_runs(page: Page, tmp_path: Path) -> None:
    (tmp_path / "flame.svg").write_text(flamegraph.render(flame_of(PROFILE)))
    (tmp_path / "page.html").write_text("<img src='flame.svg'>")
    page.goto((tmp_path / "page.html").as_uri())

    assert page.evaluate("document.images[0].naturalWidth") == 1200
