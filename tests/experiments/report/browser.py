"""A real Chromium, and what tests ask of the page that it shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

NEEDED = ("chromium", "chromedriver")
# as root there is no sandbox, and /dev/shm may be small
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage")
WIDE, NARROW = 1400, 400  # pixels of a window

# Texts and pictures that stick out of what they stand in (a cell, an item, a column) or lie on each other. What can be
# scrolled to is cut off.
MISPLACED = """
document.querySelectorAll("details").forEach((one) => { one.open = true; });
const pieces = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  if (texts.currentNode.parentElement.closest("svg")) continue;
  const range = document.createRange();
  range.selectNodeContents(texts.currentNode);
  pieces.push(...[...range.getClientRects()].map((box) => [texts.currentNode, box]));
}
pieces.push(...[...document.images].map((image) => [image, image.getBoundingClientRect()]));
const holders = "td, th, li, p, dd, dt, h1, h2, h3, h4, h5, caption, figcaption, summary, .scroll, .pair > div, body";
const named = (node) => (node.alt ?? node.textContent).trim().slice(0, 40);
const found = [];
const seen = [];
for (const [node, box] of pieces) {
  if (box.width < 1 || box.height < 1) continue;
  let [left, right] = [box.left, box.right];
  for (let at = node.parentElement.closest(holders); at; at = at.parentElement?.closest(holders)) {
    const room = at.getBoundingClientRect();
    if (at.matches(".scroll")) [left, right] = [Math.max(left, room.left), Math.min(right, room.right)];
    if (left < room.left - 1 || right > room.right + 1) {
      found.push(`${named(node)} sticks out of ${at.nodeName}`);
      break;
    }
  }
  if (right > left) seen.push({ node, left, right, top: box.top, bottom: box.bottom });
}
seen.sort((one, other) => one.top - other.top);
seen.forEach((one, index) => {
  for (let next = index + 1; next < seen.length && seen[next].top < one.bottom - 2; next++) {
    const other = seen[next];
    const shared = Math.min(one.right, other.right) - Math.max(one.left, other.left);
    if (one.node !== other.node && shared > 2) found.push(`${named(one.node)} lies on ${named(other.node)}`);
  }
});
return found;
"""


class Browser:
    """A window of a Chromium.

    Parameters
    ----------
    driver : selenium's
    """

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, width: int = WIDE) -> list[str]:
        """Show a page, pictures below the window too: what the console says of it."""
        self.resize(width)
        self.driver.get_log("browser")  # what it said of other pages
        self.driver.get(page.absolute().as_uri())
        self.run("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        decoded = "Promise.all([...document.images].map((image) => image.decode().catch(() => null)))"
        self.driver.execute_async_script(f"const done = arguments[0]; {decoded}.then(() => done());")
        return self.console()

    def resize(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **size)

    def console(self) -> list[str]:
        """What it said since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def value(self, expression: str) -> Any:
        return self.run(f"return {expression};")

    def texts(self, selector: str) -> list[str]:
        """What is written in these elements, as it is in the document."""
        return self.value(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)")

    def command(self, name: str, **options: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, options)

    @contextmanager
    def without_scripts(self) -> Iterator[None]:
        self.command("Emulation.setScriptExecutionDisabled", value=True)
        try:
            yield
        finally:
            self.command("Emulation.setScriptExecutionDisabled", value=False)


@contextmanager
def started() -> Iterator[Browser]:
    """A browser until the end; the test is skipped where there is none."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} missing: pages are looked at in a real browser")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
