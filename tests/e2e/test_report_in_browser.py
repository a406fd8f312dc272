"""A report as a browser shows it: no overflow at 390 and 1,440 pixels, light and dark, nothing asked of a network, nothing that axe finds."""

import shutil
import sys
from pathlib import Path

import pytest

from limbeck import api
from limbeck.report.page import page

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "report"))
from told import everything, nothing

playwright = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: pip install 'limbeck[browser]'")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python isn't installed: pip install 'limbeck[browser]'")

PAST = Path(__file__).parents[1] / "golden" / "runs" / "0.1.0"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
VIEWS = [(width, scheme) for width in (390, 1440) for scheme in ("light", "dark")]
REPORTS = ("everything", "nothing", "past")


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine: install the system's package chromium")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield found
        found.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> dict[str, Path]:
    """A report with every section, one with none, and one of a run."""
    folder = tmp_path_factory.mktemp("reports")
    (folder / "everything.html").write_bytes(page(everything()))
    (folder / "nothing.html").write_bytes(page(nothing()))
    api.report(PAST, out=folder / "past.html")
    return {name: folder / f"{name}.html" for name in REPORTS}


@pytest.fixture
def opened(browser):
    """Opens a report; at the end nothing may have been logged, thrown, or asked for beside the file itself."""
    pages, told, asked = [], [], []

    def open_(path: Path, width: int, scheme: str):
        shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        shown.on("console", lambda message: told.append(message.text))
        shown.on("pageerror", lambda error: told.append(str(error)))
        shown.on("dialog", lambda dialog: (told.append(dialog.message), dialog.dismiss()))
        shown.on("request", lambda request: asked.append(request.url))
        shown.goto(path.as_uri())
        pages.append(shown)
        return shown

    yield open_
    outside = [url for url in asked if not url.startswith(("file:", "data:"))]
    files = {url for url in asked if url.startswith("file:")}
    for shown in pages:
        shown.close()
    assert not told and not outside and len(files) == 1, (told, outside, files)


@pytest.mark.parametrize(("name", "width", "scheme"), [*(("everything", *view) for view in VIEWS), *((name, *view) for name in ("nothing", "past") for view in VIEWS[1:3])])
def test_it_fits_and_axe_finds_nothing(opened, reports, name, width, scheme):
    shown = opened(reports[name], width, scheme)
    shown.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    wide = shown.evaluate(
        "[...document.querySelectorAll('main *')]"
        ".filter(e => !e.closest('.scroll, nav, .hidden, thead, svg') && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120))"
    )
    assert not wide, wide
    found = axe.Axe().run(shown).response["violations"]
    assert not found, [(v["id"], v["nodes"][0]["html"][:200]) for v in found]


@pytest.mark.parametrize("width", [390, 1440])
def test_dark_follows_the_system_and_text_is_large_enough(opened, reports, width):
    colours = {s: opened(reports["everything"], width, s).evaluate("getComputedStyle(document.body).backgroundColor") for s in ("light", "dark")}
    assert colours["light"] != colours["dark"]
    shown = opened(reports["everything"], width, "light")
    sizes = shown.evaluate(
        "[...document.querySelectorAll('svg[role=img] text')].filter(t => t.getClientRects().length)"
        ".map(t => parseFloat(getComputedStyle(t).fontSize) * t.ownerSVGElement.getBoundingClientRect().width / t.ownerSVGElement.viewBox.baseVal.width)"
    )
    assert sizes and min(sizes) >= 10, min(sizes)


def test_hostile_text_is_shown_and_does_nothing(opened, reports):
    shown = opened(reports["everything"], 1440, "light")
    assert shown.evaluate("document.scripts.length") == 0 and shown.evaluate("[...document.images].every(i => i.src.startsWith('data:'))")
    assert "<script>alert(1)</script>" in shown.inner_text("main") and shown.title().startswith("limbeck report, </title>")
    assert shown.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


def test_a_screen_reader_finds_its_way(opened, reports):
    """What a screen reader is given: a table stays a table where it is laid out as cards, and drawings have names."""
    shown = opened(reports["everything"], 390, "light")
    tree = shown.locator("main").aria_snapshot()
    assert 'table "The contract\'s limits and their verdicts"' in tree
    for wanted in ("rowheader", "cell", 'img "Latency distributions"', "figure", 'heading "Contract" [level=2]'):
        assert wanted in tree, wanted
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.textContent") == "To the content"
