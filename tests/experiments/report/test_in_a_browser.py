"""In a real browser: tables can be sorted, and pages read without scripts and on paper."""

import base64
import re

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys

from experiments.report.report import write_report
from tests.experiments.analyses.reading import members
from tests.experiments.report.conftest import STORED, eight_examples
from tests.experiments.run_folders import write_run

TABLE = "table.sortable"  # the first of a page


def score(problem, value):
    return {
        "problem": problem,
        "group": "a",
        "protocol": "worst_slice",
        "metric": "precision_at_k",
        "k": 10,
        "value": value,
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two runs; the second has four problems, one of them without a score and one refused."""
    root = tmp_path_factory.mktemp("plain")
    places = {name: np.arange(8.0) for name in ("map_x", "map_y")}
    table = eight_examples(text=["a dull film", "dull", "so dull", *["great"] * 5], **places)
    definition = {"model": STORED}
    slices = members(8, range(3), [3], [], range(8))
    write_run(root, table, slices, method="a single problem", definition=definition)
    numbers = {"size": 3.0, "mean_loss": 2.5, "accuracy": 1 / 3, "gap": 0.5, "gap_low": 0.1, "gap_high": 0.9}
    rows = [
        {"problem": name, "group": "a", "slice": 0, "metric": metric, "value": value}
        for name in ("ten", "none", "nine", "half")
        for metric, value in numbers.items()
    ]
    rows += [score("ten", 0.1), score("nine", 0.9), score("half", 0.5)]
    found = {name: members(8, range(3)) for name in ("ten", "none", "nine", "half")}
    refused = {"refused": "too few examples"}
    write_run(root, table, found, method="problems", scores=rows, refused=refused, definition=definition)
    return write_report(root).parent


def page(report, number):
    (found,) = report.glob(f"run-{number:03d}-*.html")
    return found


def column(browser, table, index):
    """What is written in a column, from above, and how its head says that it is sorted."""
    cells = f"[...document.querySelectorAll('{TABLE}')[{table}].tBodies[0].rows].map((row) => row.cells[{index}]"
    return browser.value(f"{cells}?.textContent.trim())")


def head(browser, table, index):
    return browser.run(f"return document.querySelectorAll('{TABLE}')[{table}].tHead.rows[0].cells[{index}]")


def click(browser, table, index):
    browser.run("arguments[0].querySelector('button').click()", head(browser, table, index))
    return head(browser, table, index).get_attribute("aria-sort")


def test_a_click_on_a_head_sorts_numbers_and_what_has_none_stays_below(browser, report):
    assert browser.open(page(report, 2)) == []
    assert column(browser, 0, 0) == ["ten", "none", "nine", "half", "refused"]
    assert click(browser, 0, 2) == "descending"
    assert column(browser, 0, 0)[:3] == ["nine", "half", "ten"]
    assert click(browser, 0, 2) == "ascending"
    assert column(browser, 0, 0)[:3] == ["ten", "half", "nine"]
    assert set(column(browser, 0, 0)[3:]) == {"none", "refused"}
    assert browser.console() == []


def test_every_column_can_be_sorted_whatever_was_refused(browser, report):
    browser.open(page(report, 2))
    for index in range(6):
        assert click(browser, 0, index)
        assert sorted(column(browser, 0, 0)) == ["half", "nine", "none", "refused", "ten"]
    assert column(browser, 0, 0)[-1] == "refused"
    assert browser.console() == []


def test_names_are_sorted_by_the_alphabet(browser, report):
    browser.open(page(report, 2))
    assert click(browser, 0, 0) == "ascending"
    assert column(browser, 0, 0) == ["half", "nine", "none", "refused", "ten"]
    assert click(browser, 0, 0) == "descending"
    assert column(browser, 0, 0) == ["ten", "refused", "none", "nine", "half"]


def test_only_the_column_that_was_sorted_last_says_so(browser, report):
    browser.open(page(report, 1))
    click(browser, 0, 1)
    click(browser, 0, 2)
    assert browser.value("document.querySelectorAll('[aria-sort]').length") == 1
    assert head(browser, 0, 2).get_attribute("aria-sort") == "descending"


def test_slices_are_sorted_by_number_and_not_by_letter(browser, report):
    browser.open(page(report, 1))
    click(browser, 0, 1)
    assert column(browser, 0, 1) == ["8", "3", "1", "0"]
    click(browser, 0, 4)
    assert set(column(browser, 0, 0)[2:]) == {"slice 3", "slice 4"}  # neither has a gap


def test_tables_of_runs_are_sorted_too(browser, report):
    browser.open(report / "index.html")
    runs = browser.value(f"document.querySelectorAll('{TABLE}').length") - 1
    for names in (["problems", "a single problem"], ["a single problem", "problems"]):
        click(browser, runs, 1)
        assert column(browser, runs, 0) == names


def test_tables_are_sorted_by_the_keyboard(browser, report):
    browser.open(page(report, 2))
    browser.run("document.querySelector('details:has(table)').open = true")
    button = browser.run("return arguments[0].querySelector('button')", head(browser, 0, 2))
    browser.run("arguments[0].focus()", button)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert column(browser, 0, 0)[:3] == ["nine", "half", "ten"]
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_without_scripts_everything_is_there_but_the_buttons(browser, report):
    for one in (report / "index.html", page(report, 1), page(report, 2)):
        browser.open(one)
        assert browser.value("document.querySelectorAll('button').length") > 0
        text = browser.value("document.body.innerText")
        with browser.without_scripts():
            browser.open(one)
            assert browser.value("document.querySelectorAll('button').length") == 0
            assert browser.value("document.body.innerText").split() == text.split()


def test_pages_can_be_printed(browser, report):
    for one in (report / "index.html", page(report, 1)):
        assert browser.open(one) == []
        printed = base64.b64decode(browser.command("Page.printToPDF")["data"])
        assert printed.startswith(b"%PDF")
        assert len(re.findall(rb"/Type\s*/Page\b", printed)) >= 1
        assert browser.console() == []


def test_links_in_a_page_lead_to_the_slice(browser, report):
    browser.open(page(report, 1))
    for index in range(4):
        browser.run(f"document.querySelectorAll('th a')[{index}].click()")
        assert browser.texts(":target h3")[0].startswith(f"Slice {index + 1}: ")
