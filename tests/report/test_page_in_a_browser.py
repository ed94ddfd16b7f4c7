"""The page in headless Chromium: it draws, asks nobody, shows the profile of a check that is chosen, and sorts."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_landscape.commands.report import report
from tests.report.test_page import EVIL, row, write_checks

webdriver = pytest.importorskip("selenium.webdriver", reason="Selenium is not installed")
DRIVER = shutil.which("chromedriver")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(DRIVER is None, reason="there is no chromedriver")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_works_at_this_width(browser: Any, tmp_path: Path, width: int) -> None:
    rows = row(1, height=0.3), row(2, height=0.1, verdict="not_found", reason=EVIL), row(3, height=0.2, pair=EVIL)
    report([str(write_checks(tmp_path, *rows))], "landscape report")
    browser.set_window_size(width, 1000)
    address = (tmp_path / "report.html").as_uri()
    browser.get(address)
    browser.set_script_timeout(60)
    browser.execute_async_script(
        "const done = arguments[0], page = document.documentElement;"
        "const look = () => page.dataset.ready ? done() : setTimeout(look, 50); look()"
    )
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    said = "return document.querySelector('.profile figcaption').textContent"
    assert browser.execute_script(said).startswith("Check 3")
    browser.execute_script("document.querySelector('.open').click()")
    assert browser.execute_script(said).startswith("Check 1")
    mark = "document.getElementById('chart-0-0').emit('plotly_click', {points: [{customdata: 1}]})"
    browser.execute_script(mark)
    assert browser.execute_script(said).startswith("Check 2")
    browser.execute_script("document.querySelectorAll('th button')[4].click()")
    order = "return [...document.querySelectorAll('tbody tr')].map((each) => each.cells[0].textContent)"
    assert browser.execute_script(order) == ["2", "3", "1"]
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert asked == {address}
