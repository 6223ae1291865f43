"""In a real browser: whatever somebody wrote into data, names and settings, it is text, and stays in its place."""

import re
from itertools import pairwise

import pytest

from experiments.report.report import write_report
from experiments.report.words import written
from tests.experiments.report import hostile
from tests.experiments.report.browser import MISPLACED, NARROW, WIDE

FOLDER = "spaces, # 100% %41 ü? \"'<b>&amp;"
PAGES = ("index", "run-001", "run-002", "run-003", "inline")
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "script", "nav", "article", "section", "h1", "h2", "h3", "h4"),
    *("h5", "p", "a", "bdi", "span", "small", "mark", "ul", "li", "dl", "dt", "dd", "div", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "button", "figure", "figcaption", "img"),
    *("svg", "line", "rect", "circle", "text"),
}
ATTACK = """
<script>window.hacked = 1</script>
<img src="nothing.png" onerror="window.hacked = 1">
<a id="link" href="javascript:window.hacked = 1">look</a>
<p id="styled" style="color: rgb(1, 2, 3)">text</p>
<style>p { display: none }</style>
<iframe src="data:text/html,<script>parent.hacked = 1</script>"></iframe>
"""
# Plain texts whose first letter stands behind their last one.
TURNED_ROUND = """
const found = [];
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const left = (node, at) => {
  const range = document.createRange();
  range.setStart(node, at);
  range.setEnd(node, at + 1);
  return range.getBoundingClientRect();
};
while (texts.nextNode()) {
  const node = texts.currentNode;
  const words = /[a-z]{3,}/.exec(node.data);
  const whole = node.parentElement.closest(".text") ?? node; // which is turned round itself
  if (!words || /[^ -~\\n]/.test(whole.textContent)) continue;
  const [first, last] = [left(node, words.index), left(node, words.index + words[0].length - 1)];
  if (first.top === last.top && first.left > last.left) found.push(node.data.trim());
}
return found;
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The pages of a report on hostile runs, by the beginnings of their names."""
    root = tmp_path_factory.mktemp("hostile")
    hostile.write_hostile_runs(root)
    out = root / FOLDER / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.report.overview.rows_of", hostile.published)
        folder = write_report(root, out).parent
        inline = write_report(root, out.with_name("in one file.html"), inline=True)
    pages = {page.name[: len("run-001")] if page.stem != "index" else "index": page for page in folder.glob("*.html")}
    return {**pages, "inline": inline}


@pytest.fixture(params=PAGES)
def page(request, report):
    return report[request.param]


def test_there_is_a_page_for_each_run(report):
    assert set(report) == set(PAGES)


def test_nothing_that_was_written_by_others_runs_or_loads(browser, page):
    assert browser.open(page) == []
    assert browser.value("window.hacked") is None
    assert browser.value("document.scripts.length") == 1
    assert set(browser.value("[...document.querySelectorAll('*')].map((one) => one.localName)")) <= ELEMENTS
    attributes = browser.value("[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())")
    assert not [name for name in attributes if name.startswith("on") or name == "style"]
    below = (page.parent / "files").as_uri()
    resources = browser.value("performance.getEntriesByType('resource').map((one) => one.name)")
    assert all(name.startswith("data:" if page.stem == "in one file" else below) for name in resources)


def test_links_lead_to_our_pages_only(browser, page):
    browser.open(page)
    links = browser.value("[...document.links].map((link) => link.getAttribute('href'))")
    assert links
    assert all(re.fullmatch(r"#[\w-]+|(index|run-[a-z0-9-]+)\.html", link) for link in links)


def test_it_is_all_there_as_text(browser, page):
    browser.open(page)
    text = browser.value("document.body.textContent")
    for wanted in (*hostile.SHORT, hostile.HALF):
        assert written(wanted) in text
    assert hostile.LONG not in text


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_nothing_is_cut_off_and_nothing_lies_on_anything_else(browser, page, width):
    browser.open(page, width)
    assert browser.run(MISPLACED) == []
    assert browser.value("document.documentElement.scrollWidth") <= width


def test_what_is_written_backwards_turns_nothing_else_round(browser, page):
    browser.open(page)
    assert browser.run(TURNED_ROUND) == []


def test_without_isolation_it_would(browser, report):
    """That the test above can fail."""
    browser.open(report["index"])
    browser.run("document.querySelectorAll('bdi').forEach((one) => { one.replaceWith(...one.childNodes); })")
    assert browser.run(TURNED_ROUND)


def test_pages_are_complete_for_who_hears_them(browser, page):
    browser.open(page)
    pictures = browser.value("[...document.images].map((one) => [one.alt, one.naturalWidth])")
    assert all(alt and width for alt, width in pictures)
    levels = [
        int(name[1])
        for name in browser.value("[...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map((h) => h.localName)")
    ]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in pairwise(levels))
    heads = browser.value("[...document.querySelectorAll('th')].map((one) => one.scope)")
    assert set(heads) <= {"col", "row"}
    assert browser.value(
        "[...document.querySelectorAll('table')].every((one) => one.querySelector('thead th[scope=col]'))"
    )
    drawings = browser.value("[...document.querySelectorAll('svg')].map((one) => one.ariaLabel || one.ariaHidden)")
    assert all(drawings)
    names = browser.value("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(names) == len(set(names))
    assert browser.value("document.title")
    assert browser.value("document.documentElement.lang") == "en"


def attacked(page, policy=True):
    """A copy of a page, beside it, with what no page of ours holds."""
    html = page.read_text().replace("</body>", f"{ATTACK}</body>")
    copy = page.with_name("attacked.html")
    copy.write_text(html if policy else html.replace("Content-Security-Policy", "no-policy"))
    return copy


@pytest.fixture
def clicked(browser, report):
    """What the console says of such a copy when somebody has clicked on its link."""

    def open_and_click(**options):
        copy = attacked(report["run-001"], **options)
        said = browser.open(copy)
        browser.run("document.getElementById('link').click()")
        copy.unlink()
        return [*said, *browser.console()]

    return open_and_click


def test_even_if_something_got_in_the_browser_would_refuse_it(browser, clicked):
    refused = "\n".join(clicked())
    for what in ("inline script", "inline event handler", "inline style", "JavaScript URL", "Framing"):
        assert re.search(f"{what}.*Content Security Policy", refused), refused
    assert browser.value("window.hacked") is None
    styled = "getComputedStyle(document.getElementById('styled'))"
    assert browser.value(f"[{styled}.color, {styled}.display]") == ["rgb(28, 35, 38)", "block"]


def test_without_the_policy_it_would_not(browser, clicked):
    """That the test above can fail."""
    clicked(policy=False)
    assert browser.value("window.hacked") == 1
