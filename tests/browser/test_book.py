"""The page edition in a browser, from its files alone: no server, no network."""

import re
import subprocess
from pathlib import Path

import pytest
from notebook_page import SHOTS
from playwright.sync_api import BrowserContext, Page, expect

ROOT = Path(__file__).resolve().parent.parent.parent
HTML = ROOT / "build" / "book" / "html"


@pytest.fixture(scope="module")
def page(browser: BrowserContext):
    done = subprocess.run(["make", "book"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = browser.new_page()
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    yield page
    assert page.errors == []
    assert [url for url in page.asked if url.startswith("http")] == []
    page.close()


def open_page(page: Page, name: str) -> None:
    page.goto(f"file://{HTML / name}")


def test_the_first_page_leads_to_every_chapter(page):
    open_page(page, "index.html")
    expect(page.locator("article h1").first).to_have_text(re.compile("SFT Lab"))
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        assert page.locator(f'nav a[href="notebooks/{path.stem}.html"]').count() >= 1, path.stem
    page.screenshot(path=SHOTS / "book.png")


def test_formulas_are_set_without_a_server(page):
    open_page(page, "notebooks/01_cross_entropy.html")
    expect(page.locator("mjx-container").first).to_be_visible()
    assert "$$" not in page.locator("article").first.inner_text()


def test_an_output_to_be_predicted_is_folded_until_it_is_opened(page):
    open_page(page, "notebooks/13_forgetting.html")
    folded = page.locator(".tag_predict").first
    output = folded.locator(".cell_output").first
    expect(output).not_to_be_visible()
    folded.locator("summary").first.click()
    expect(output).to_be_visible()


def test_a_search_finds_chapter_and_words(page):
    open_page(page, "search.html?q=teacher+forcing")
    found = page.locator("#search-results a", has_text="Teacher forcing and label masks")
    expect(found.first).to_be_visible()


def test_every_picture_is_there(page):
    open_page(page, "notebooks/17_reward.html")
    sizes = page.locator("article img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert sizes and all(sizes)
