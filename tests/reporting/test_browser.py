"""The page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from glmpatch.reporting.as_html import render
from tests.reporting.reports import NASTY, clean_report, crowded_report, nasty_report, report, rich_report, tree

pytestmark = pytest.mark.browser
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class Tab:
    """A page in the browser."""

    def __init__(self, driver: webdriver.Chrome, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def open(self, text: str, *, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Show the page, from a file, as a screen of this size would."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.colours(scheme)
        file = self.folder / "report.html"
        file.write_text(text)
        self.driver.get(file.as_uri())

    def colours(self, scheme: str) -> None:
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def visible(self, selector: str) -> list[WebElement]:
        script = "return [...document.querySelectorAll(arguments[0])].filter((one) => one.checkVisibility())"
        return list(self.run(script, selector))

    def cell(self, row: int, column: int) -> WebElement:
        return self.find(f"tbody tr:nth-child({row}) td:nth-of-type({column}) button")

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def focused(self) -> str:
        return str(self.run("return document.activeElement.getAttribute('aria-label')"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    helper = shutil.which("chromedriver")
    if not browser or not helper:
        pytest.skip("needs chromium (or google-chrome) and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(helper))
    # Its own first page, and what that loads, is not ours.
    driver.get("about:blank")
    driver.get_log("performance")  # type: ignore[no-untyped-call]
    yield driver
    driver.quit()


@pytest.fixture
def tab(driver: webdriver.Chrome, tmp_path: Path) -> Iterator[Tab]:
    """A tab, and behind each test the proof that the page logged no error and asked for nothing but itself."""
    yield Tab(driver, tmp_path)
    assert driver.get_log("browser") == []  # type: ignore[no-untyped-call]
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]  # type: ignore[no-untyped-call]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert asked == {(tmp_path / "report.html").as_uri()}


def luminance(colour: str) -> float:
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_click_opens_the_diff_of_that_cell_and_escape_closes_it(tab: Tab) -> None:
    tab.open(render(rich_report()))
    cell = tab.cell(2, 1)
    cell.click()
    panel = tab.find("dialog")
    assert panel.is_displayed()
    assert tab.find("#title").text == "requirements: Do requirements"
    assert "dev" in tab.find("#tree").text
    assert tab.find("dialog .remove").text == "-    model = old"
    assert tab.find("dialog .add").text == "+    model = new"
    assert tab.find("dialog .k").text == "def"
    tab.press(Keys.ESCAPE)
    assert not panel.is_displayed()
    assert tab.focused().startswith("requirements, dev")
    tab.cell(1, 3).click()
    assert "found no such text" in tab.find("dialog .trouble").text
    assert not tab.visible("dialog .diff")
    tab.find("dialog header button").click()
    assert not panel.is_displayed()


def test_pointer_and_focus_show_the_reason(tab: Tab) -> None:
    tab.open(render(rich_report()))
    assert not tab.visible(".tip")
    ActionChains(tab.driver, duration=0).move_to_element(tab.cell(1, 3)).perform()
    assert tab.find(".tip").text.startswith("precision, main, pinned (2023-03-23): conflict. ptuning/main.py:12")
    ActionChains(tab.driver, duration=0).move_to_element(tab.find("h1")).perform()
    assert not tab.visible(".tip")
    tab.run("document.activeElement.blur(); document.querySelector('#drift').focus()")
    tab.press(Keys.TAB)
    assert tab.find(".tip").text.startswith("requirements, main, pinned (2023-03-23): clean.")


def test_the_grid_is_one_stop_and_arrows_move_in_it(tab: Tab) -> None:
    tab.open(render(rich_report()))
    assert len(tab.driver.find_elements(By.CSS_SELECTOR, "td button[tabindex='0']")) == 1
    tab.run("document.querySelector('#drift').focus()")
    tab.press(Keys.TAB)
    for key, name in (
        (Keys.ARROW_RIGHT, "process-group, main"),
        (Keys.ARROW_DOWN, "process-group, dev"),
        (Keys.END, "cpu-demos, dev"),
        (Keys.ARROW_RIGHT, "cpu-demos, dev"),
        (Keys.PAGE_DOWN, "cpu-demos, 1000000000"),
        (Keys.HOME, "requirements, 1000000000"),
        (Keys.PAGE_UP, "requirements, main"),
    ):
        tab.press(key)
        assert tab.focused().startswith(name), key
        assert tab.find(".tip").text == tab.focused()
    tab.press(Keys.ENTER)
    assert tab.find("#title").text == "requirements: Do requirements"
    tab.press(Keys.ESCAPE)
    assert tab.focused().startswith("requirements, main")


def test_filters(tab: Tab) -> None:
    tab.open(render(rich_report()))
    assert len(tab.visible("tbody tr")) == 8
    tab.find("#drift").click()
    assert len(tab.visible("tbody tr")) == 6
    tab.find("#heads").click()
    assert [row.find_element(By.CSS_SELECTOR, ".tag").text for row in tab.visible("tbody tr")] == ["main"]
    tab.find("#drift").click()
    assert len(tab.visible("tbody tr")) == 2
    assert not tab.visible(".empty")
    tab.open(render(clean_report()))
    tab.find("#drift").click()
    assert not tab.visible("tbody tr")
    assert tab.visible(".empty")


def test_light_and_dark_can_be_read(tab: Tab) -> None:
    tab.open(render(rich_report()))
    tab.cell(1, 1).click()
    script = """
    const seen = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = getComputedStyle(at).backgroundColor;
        if (colour !== "rgba(0, 0, 0, 0)") return colour;
      }
    };
    const hasText = (one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    return [...document.querySelectorAll("body *")]
      .filter((one) => one.checkVisibility() && hasText(one))
      .map((one) => [one.outerHTML.slice(0, 90), getComputedStyle(one).color, seen(one)]);
    """
    grounds = set()
    for scheme in ("light", "dark"):
        tab.colours(scheme)
        texts = tab.run(script)
        assert len(texts) > 100
        assert not [text for text in texts if contrast(text[1], text[2]) < 4.5]
        grounds.add(tab.run("return getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


@pytest.mark.parametrize("hostile", [False, True])
def test_a_phone_scrolls_the_grid_and_not_the_page(tab: Tab, hostile: bool) -> None:
    tab.open(render(nasty_report() if hostile else rich_report()), width=360, height=740)
    assert tab.run("return document.documentElement.scrollWidth") == 360
    heading = tab.find("tbody tr th")
    before = tab.run("return arguments[0].getBoundingClientRect().left", heading)
    moved = "const grid = document.querySelector('.grid'); grid.scrollLeft = 100; return grid.scrollLeft"
    assert tab.run(moved) == 100
    assert tab.run("return arguments[0].getBoundingClientRect().left", heading) == before
    tab.run("arguments[0].click()", tab.cell(1, 1))
    assert tab.run("return document.querySelector('dialog').getBoundingClientRect().width") == 360
    assert tab.run("const panel = document.querySelector('dialog'); return panel.scrollWidth <= panel.clientWidth")


@pytest.mark.parametrize("width", [360, 700, 800, 1000, 1280])
def test_names_lie_over_no_cell(tab: Tab, width: int) -> None:
    script = """
    return [...document.querySelectorAll("tbody tr")].map((row) => {
      const box = (one) => one.getBoundingClientRect(), heading = row.cells[0];
      const parts = [...heading.querySelectorAll("*")].filter((one) => one.checkVisibility());
      return {
        widths: [heading, ...heading.querySelectorAll(".tag:not(.rest)")].map((one) => box(one).width),
        right: Math.max(...parts.map((one) => box(one).right)), edge: box(heading).right, cell: box(row.cells[1]).left,
        text: heading.innerText,
      };
    });
    """
    folder = report(tree(0, "/srv/" + "long/" * 30, folder=True))
    for one in (rich_report(), crowded_report(), folder):
        tab.open(render(one), width=width)
        for row in tab.run(script):
            assert row["right"] <= row["edge"] <= row["cell"] + 0.01
            assert row["widths"][0] >= (135 if width == 360 else 270)
            assert min(row["widths"]) >= 30
    tab.open(render(crowded_report()), width=width)
    first = tab.run(script)[0]["text"]
    assert "18 more" in first
    assert "branch-2" not in first
    tab.cell(1, 1).click()
    assert "branch-19" in tab.find("#tree").text
    assert "18 more" not in tab.find("#tree").text


def test_a_finger_hits_what_it_means(tab: Tab) -> None:
    tab.open(render(rich_report()), width=360, height=740)
    tab.cell(1, 1).click()
    script = """
    const targets = document.querySelectorAll("fieldset label, summary, td button, dialog header button");
    return [...targets].map((one) => one.getBoundingClientRect()).map((box) => Math.min(box.width, box.height));
    """
    sizes = tab.run(script)
    assert len(sizes) == 2 + 1 + 8 * 8 + 1
    assert min(sizes) >= 40


def test_old_troubles_unfold(tab: Tab) -> None:
    tab.open(render(rich_report()))
    assert not tab.visible("details .card")
    tab.find("summary").click()
    assert "found what only old commits had" in tab.find("details .card").text


def test_hostile_texts_stay_texts(tab: Tab) -> None:
    tab.open(render(nasty_report()))
    for row in range(1, len(NASTY) + 1):
        for column in (1, 2):
            tab.run("arguments[0].click()", tab.cell(row, column))
            assert tab.visible("dialog .trouble, dialog .diff")
            tab.press(Keys.ESCAPE)
    assert tab.driver.title == "Drift: glmpatch check"
    assert not tab.driver.find_elements(By.CSS_SELECTOR, "img, main script, dialog script, td b, pre b")
    assert "</script><script>document.title = 'owned'</script>" in tab.find("main").text


def test_without_a_script_the_grid_can_still_be_read(tab: Tab) -> None:
    tab.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        tab.open(render(rich_report()))
        assert str(tab.cell(1, 3).get_attribute("title")).startswith("precision, main, pinned")
        assert tab.cell(1, 3).text == "✗"
        tab.find("#heads").click()
        assert len(tab.visible("tbody tr")) == 2
    finally:
        tab.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
