"""The views of the chapters in JupyterLab, in a real browser: `make test-browser`. `make test`
leaves them alone.

A chapter that shows a view has a file test_chNN.py here. One JupyterLab and one browser serve them
all; a chapter is run once, through the menu, and its kernel ends with its file. So:

    from notebook_page import fresh_view, find_view

    @pytest.fixture(scope="module")
    def page(open_chapter):
        # a Playwright Page; every cell has run, or the test fails with the cell's traceback
        return open_chapter(1)

    def test_the_slider_halves_the_probability(page):
        # the chapter's first view, its cell run again; fresh_view(page, 1) for the second
        view = fresh_view(page)
        # also view.button(label), view.box(label) for text and switches
        view.tab_to(view.slider("its probability"))
        page.keyboard.press("ArrowLeft")
        # what the plain functions say and draw for these values, after plots.style()
        view.expect_text(describe_step(...))
        view.expect_picture(draw_step(...))
        # no error anywhere, alternative texts, every control reached with Tab; a screenshot
        view.check("ch01")

`find_view(page)` is the view as it stands. `view.root` is a Playwright locator for all else; wait
with `expect`, never with a pause. A failing test leaves a picture of the page in build/browser.
"""

import os
from collections.abc import Callable, Iterator

import pytest
from lab_server import Lab, find_chromium, running_lab
from notebook_page import SHOTS, run_chapter
from playwright.sync_api import BrowserContext, Error, Page, sync_playwright

CONTEXT = pytest.StashKey[BrowserContext]()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A running JupyterLab."""
    with running_lab(tmp_path_factory.mktemp("lab")) as started:
        yield started


@pytest.fixture(scope="session")
def browser(request: pytest.FixtureRequest) -> Iterator[BrowserContext]:
    """A headless Chromium without memory of earlier runs; `browser.new_page()` opens a page."""
    quiet = "gpu quic background-networking component-update sync"  # nothing here needs the network
    flags = ["--no-first-run", *(f"--disable-{what}" for what in quiet.split())]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium's sandbox refuses to start as root
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=find_chromium(), args=flags)
        context = started.new_context(
            viewport={"width": 1280, "height": 1000}, reduced_motion="reduce"
        )
        request.session.stash[CONTEXT] = context
        yield context
        started.close()


@pytest.fixture(scope="module")
def open_chapter(lab: Lab, browser: BrowserContext) -> Iterator[Callable[[int | str], Page]]:
    """A function from a chapter's number to a page on which all its cells have run; its kernel ends
    with the file."""
    pages = []

    def open_and_run(number: int | str) -> Page:
        number = str(number).zfill(2)  # 1, or "11b" for the second half of a chapter
        found = [path.name for path in lab.folder.glob(f"{number}_*.ipynb")]
        assert len(found) == 1, (
            f"chapter {number} is built as {found} in notebooks/; run: make notebooks"
        )
        pages.append(browser.new_page())
        run_chapter(pages[-1], lab, found[0])
        return pages[-1]

    yield open_and_run
    for page in pages:
        page.evaluate("() => jupyterapp.shell.currentWidget?.context.sessionContext.shutdown()")
        page.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    report = yield
    context = item.session.stash.get(CONTEXT, None)
    for page in context.pages if report.failed and context else []:
        try:
            page.screenshot(path=SHOTS / f"{item.name}.png", timeout=10_000)
            shot = str(SHOTS / f"{item.name}.png")
        except Error as error:  # the test's own failure matters more
            shot = f"no picture: {error}"
        report.sections.append(("the page when it failed", shot))
    return report
