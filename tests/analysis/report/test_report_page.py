"""The page of `report` in a browser: what a person sees, clicks, types and prints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import Browser, browser, missing
from helpers.claim_stores import answer
from helpers.handmade_runs import fill, jobs
from helpers.reports import HARM, Made, hostile_store, make

ENTER, ESCAPE = "\ue007", "\ue00c"
PAPER = 720
"""The width of a printed page in CSS pixels."""

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if absent := missing():
        pytest.skip(f"no {' and no '.join(absent)}: apt-get install chromium chromium-driver")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Table 6 at scale smoke: three examples, the first always right, the last never."""
    store = tmp_path_factory.mktemp("store")
    fill(store)
    for job in jobs():
        answer(store, job, [True, job.resolved.run.seed == 0, False], [0, 1, 1])
    return make(store)


def open_page(window: Browser, made: Made, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
    place = made.store / "page.html"
    place.write_text(made.page, encoding="utf-8")
    window.devtools(
        "Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    window.resize(width, height)
    window.open(place)


def first_box(made: Made) -> Any:
    return next(box for box in made.data["boxes"] if box["id"].startswith("table6-"))


def ground(window: Browser) -> str:
    return window.run("return getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_person_finds_the_numbers_of_the_json(
    width: int, height: int, scheme: str, window: Browser, made: Made
) -> None:
    open_page(window, made, width, height, scheme)
    assert window.run("return document.documentElement.scrollWidth") == window.run("return innerWidth") == width
    shown = dict(
        window.run(
            "return [...document.querySelectorAll('button[data-box]')].map((button) =>"
            "[button.dataset.box, [...button.children].map((part) => part.textContent)])"
        )
    )
    boxes = {box["id"]: box for box in made.data["boxes"]}
    assert shown.keys() == boxes.keys()
    for name, box in boxes.items():
        difference = box["difference"]["text"] if box["difference"] else ""
        assert shown[name] == [part for part in (box["text"], box["interval"], box["seeds"], difference) if part]
    assert window.console() == [] and window.run("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_a_cell_opens_by_click_and_by_key_and_shows_its_runs(width: int, window: Browser, made: Made) -> None:
    open_page(window, made, width)
    box = first_box(made)
    is_open = "return document.getElementById('cell').open"
    assert window.run(is_open) is False
    window.run(f"document.querySelector('button[data-box=\"{box['id']}\"]').focus()")
    window.press(ENTER)
    assert window.run(is_open) is True
    text = window.text("inside")
    for run in box["runs"]:
        assert run["run_id"] in text and run["text"] in text and all(each in text for each in run["curve_text"])
    assert box["command"] in text and "1 were answered right with all 2 seeds, 1 with none" in text
    assert window.run("return document.querySelectorAll('#inside .curves polyline').length") == len(box["runs"]) == 2
    assert window.run("return document.documentElement.scrollWidth") == width
    dialog = "const cell = document.getElementById('cell'); return cell.scrollWidth <= cell.clientWidth"
    assert window.run(dialog) is True
    assert window.run("return location.hash") == f"#{box['id']}"
    window.press(ESCAPE)
    assert window.run(is_open) is False and window.run("return location.hash") == ""
    window.run(f"document.querySelector('button[data-box=\"{box['id']}\"]').click()")
    assert window.run(is_open) is True and window.console() == []


def test_the_address_of_a_cell_opens_it(window: Browser, made: Made) -> None:
    open_page(window, made)
    box = first_box(made)
    window.run(f"location.hash = '{box['id']}'; location.reload()")
    assert box["title"] in window.text("inside")


def test_the_theme_can_be_chosen(window: Browser, made: Made) -> None:
    open_page(window, made)
    light = ground(window)
    window.run("document.getElementById('theme').click()")
    dark = ground(window)
    open_page(window, made, scheme="dark")
    assert ground(window) == dark != light
    window.run("document.getElementById('theme').click()")
    assert ground(window) == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_prints_light_and_whole(scheme: str, window: Browser, made: Made) -> None:
    """Others' reports printed white on black, with closed sections and with columns cut off."""
    open_page(window, made, scheme=scheme)
    if scheme == "light":
        window.run("document.getElementById('theme').click()")  # dark by choice, against the system
    window.resize(PAPER, 1000)
    window.run("dispatchEvent(new Event('beforeprint'))")
    window.devtools("Emulation.setEmulatedMedia", media="print")
    assert ground(window) == "rgb(255, 255, 255)"
    assert window.run("return document.querySelectorAll('main details:not([open])').length") == 0
    assert window.run("return document.documentElement.scrollWidth") == PAPER
    window.run("dispatchEvent(new Event('afterprint'))")
    assert window.run("return document.querySelectorAll('main details[open]').length") == 0


def test_texts_that_mean_harm_do_nothing(window: Browser, tmp_path: Path) -> None:
    found = make(hostile_store(tmp_path))
    open_page(window, found, 390, 844)
    window.run("document.querySelectorAll('button[data-box]').forEach((button) => button.click())")
    assert window.run("return window.harmed ?? null") is None and window.console() == []
    failed = next(box for box in found.data["boxes"] if box["n"] < box["expected"])
    window.run(f"document.querySelector('button[data-box=\"{failed['id']}\"]').click()")
    assert HARM in window.text("inside") and window.run("return document.documentElement.scrollWidth") == 390
