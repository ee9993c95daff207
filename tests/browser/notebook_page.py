"""A person in front of JupyterLab: run a chapter from the menu, find its views, move their
controls.

What a person does goes through mouse and keyboard. What a person sees at a glance, such as "every
cell has run", is read from JupyterLab's own model of the notebook, since cells outside the window
need not be on the page.
"""

import base64
import io
import re
import time

import numpy as np
from lab_server import ROOT, START, Lab, strip_colors
from matplotlib.figure import Figure
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from sft_lab.course.views.widgets import to_png

SHOTS = ROOT / "build" / "browser"
CHAPTER = 600  # seconds for all cells of a chapter; a quiet machine needs less than a tenth
ANSWER = 30_000  # milliseconds for a view to answer a control; a busy machine needs some of them
MOST_TABS = 60
LOADED = "() => window.jupyterapp?.shell.currentWidget?.content?.model?.cells?.length > 0"
WALK = (
    "root => root.contains(document.activeElement) && !!window.walked.add(document.activeElement)"
)
BEFORE_FOCUS = """el => !!(
  el.compareDocumentPosition(document.activeElement) & Node.DOCUMENT_POSITION_FOLLOWING)"""
MISSED = """root => [...root.querySelectorAll(
  'button, input, textarea, [role=slider], [contenteditable=true]'
)].filter(
  el => !el.disabled && el.checkVisibility() && !window.walked.has(el)
    // arrows move inside a group
    && !(el.type === 'radio' && [...window.walked].some(seen => seen.name === el.name))
).map(el => el.outerHTML.slice(0, 200))"""
STATE = """() => {
  const {content, context} = jupyterapp.shell.currentWidget, cells = content.model.cells;
  const codes = [...cells].filter(
    cell => cell.type === 'code' && cell.sharedModel.getSource().trim());
  const outputs = cell => Array.from(
    {length: cell.outputs.length}, (_, i) => cell.outputs.get(i).toJSON());
  return {
    kernel: context.sessionContext.session?.kernel?.status ?? 'none',
    left: codes.filter(cell => !cell.executionCount || cell.executionState === 'running').length,
    error: codes.flatMap(cell => outputs(cell).filter(o => o.output_type === 'error').map(
      o => ({source: cell.sharedModel.getSource(), traceback: o.traceback.join('\\n')})
    ))[0] ?? null,
    views: [...cells].flatMap((cell, i) => cell.type !== 'code' ? [] : outputs(cell).filter(
      o => o.data?.['application/vnd.jupyter.widget-view+json'] && o.data['image/png']
    ).map(() => i)),
  };
}"""
LISTEN = """() => {
  window.kernelErrors = [];
  const {kernel} = jupyterapp.shell.currentWidget.context.sessionContext.session;
  kernel.iopubMessage.connect((_, message) => {
    if (message.header.msg_type !== 'error') return;
    window.kernelErrors.push(message.content.traceback.join('\\n'));
  });
}"""


def run_chapter(page: Page, lab: Lab, name: str) -> None:
    """Open one notebook, choose Run, Run All Cells from the menu, and wait until the last cell has
    run.

    AssertionError with the cell's own traceback when one raises, and with what is left when time
    runs out.
    """
    page.goto(f"{lab.url}lab/tree/{name}?token={lab.token}&reset")
    page.wait_for_function(LOADED, timeout=START * 1000)
    page.wait_for_function(f"() => ({STATE})().kernel === 'idle'", timeout=START * 1000)
    page.evaluate(LISTEN)
    page.get_by_role("menubar").first.get_by_text("Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()
    _wait_for_cells(page, name)


def find_view(page: Page, n: int = 0) -> "View":
    """The n-th view of the chapter, scrolled to, as the cell left it."""
    places = page.evaluate(STATE)["views"]
    assert n < len(places), (
        f"the chapter shows {len(places)} views with a static picture beside them; no number {n}"
    )
    cell = page.locator(f'.jp-Cell[data-windowed-list-index="{places[n]}"]')
    cell.scroll_into_view_if_needed()
    root = cell.locator(".jp-OutputArea-output > .jupyter-widgets").nth(places[:n].count(places[n]))
    expect(root).to_be_visible(timeout=ANSWER)
    return View(page, cell, root)


def fresh_view(page: Page, n: int = 0) -> "View":
    """The n-th view as at the beginning: its cell is chosen and run again with Ctrl-Enter. The cell
    has the focus."""
    old = find_view(page, n)
    old.root.evaluate("el => { el.dataset.old = 'yes' }")
    _choose_cell(old)
    page.keyboard.press("Control+Enter")
    expect(old.cell.locator("[data-old]")).to_have_count(0, timeout=ANSWER)
    _wait_for_cells(page, "the view's cell")
    return find_view(page, n)


def _choose_cell(view: "View") -> None:
    """Click into the code and press Escape: a click beside it would leave the focus in a text box
    of the view."""
    view.cell.locator(".jp-InputArea-editor").click()
    view.page.keyboard.press("Escape")


def _wait_for_cells(page: Page, name: str) -> None:
    until = time.monotonic() + CHAPTER
    while True:
        state = page.evaluate(STATE)
        if error := state["error"]:
            raise AssertionError(
                f"{name}: a cell raises\n{error['source']}\n\n{strip_colors(error['traceback'])}"
            )
        if not state["left"] and state["kernel"] == "idle":
            return
        assert state["kernel"] in ("idle", "busy"), (
            f"{name}: kernel {state['kernel']}, {state['left']} cells not run"
        )
        assert time.monotonic() < until, (
            f"{name}: {state['left']} cells have not run after {CHAPTER} s"
        )
        page.wait_for_timeout(300)


class View:
    """One interactive view on the page. Playwright locators: `root` is the widget itself, `cell`
    the cell around it."""

    def __init__(self, page: Page, cell: Locator, root: Locator):
        self.page, self.cell, self.root = page, cell, root

    def button(self, label: str) -> Locator:
        return self.root.get_by_role("button", name=label, exact=True)

    def slider(self, label: str) -> Locator:
        """The handle of the slider beside that label: it takes the focus and the arrow keys."""
        return self.root.locator(".widget-slider").filter(has_text=label).get_by_role("slider")

    def box(self, label: str) -> Locator:
        """The text box or the switch of that label."""
        return self.root.get_by_label(label, exact=True)

    def tab_to(self, control: Locator) -> None:
        """Press Tab until the control has the focus, or Shift-Tab where it lies before the focus:
        forward, Tab would go round the whole page.

        AssertionError when it does not get it.
        """
        for _ in range(MOST_TABS):
            if control.evaluate("el => el === document.activeElement"):
                return
            self.page.keyboard.press("Shift+Tab" if control.evaluate(BEFORE_FOCUS) else "Tab")
        raise AssertionError(f"{control} does not get the focus by pressing Tab {MOST_TABS} times")

    def expect_text(self, sentence: str) -> None:
        """Wait until a paragraph of the view reads exactly so."""
        try:
            expect(self.root.get_by_text(sentence, exact=True)).to_be_visible(timeout=ANSWER)
        except AssertionError:
            raise AssertionError(f"the view does not say\n{sentence}\n\n{self._state()}") from None

    def expect_picture(self, figure: Figure, n: int = 0) -> None:
        """Wait until the n-th picture of the view is the figure (drawn by the test; it is closed).

        Means of small squares are compared: a layout that moves a line by a pixel passes, another
        bar does not.

        The test must draw in the chapter's style: call `plots.style()` first.
        """
        wanted, until = _pixels(to_png(figure)), time.monotonic() + ANSWER / 1000
        while not looks_like(_pixels(self.picture(n)), wanted):
            assert time.monotonic() < until, (
                f"picture {n} of the view is not the expected figure; {self._state()}"
            )
            self.page.wait_for_timeout(100)

    def picture(self, n: int = 0) -> bytes:
        """The n-th picture as the page holds it, a PNG file; AssertionError when the browser cannot
        show it."""
        image = self.root.locator("img").nth(n)
        expect(image).to_be_visible(timeout=ANSWER)
        return base64.b64decode(image.get_attribute("src").split("base64,")[1])

    def check(self, name: str) -> None:
        """What must hold for every view, in any state; leaves the screenshot
        build/browser/<name>.png to look at.

        No error in place of a widget, none raised by a control, pictures that the browser shows and
        that have a text for those who do not see them, and every control reached with Tab.
        """
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.root.screenshot(path=SHOTS / f"{name}.png")
        said = self.root.inner_text()
        assert not re.search(
            "Error displaying widget|Error creating widget|Loading widget", said
        ), said
        errors = self.page.evaluate("() => window.kernelErrors")
        assert not errors, f"a control raises:\n{strip_colors(errors[0])}"
        for image in self.root.locator("img").all():
            assert image.evaluate("el => el.naturalWidth") > 0, "a picture is broken"
            assert len(image.get_attribute("alt") or "") > 20, (
                "a picture has no text beside it (alt)"
            )
        assert not self.root.locator("select").count(), (
            "a drop-down: JupyterLab takes its keys as commands"
        )
        nulls = [
            place.inner_text()
            for place in self.root.locator("[title=null]").all()
            if place.is_visible()
        ]
        assert not nulls, (
            f'under the mouse {nulls} shows the word "null": give the widget a tooltip'
        )
        missed = self._controls_without_tab()
        assert not missed, f"Tab does not reach {missed}"

    def _state(self) -> str:
        """What the view says, and what its controls raised since the chapter was opened."""
        errors = (
            strip_colors("\n".join(self.page.evaluate("() => window.kernelErrors"))) or "nothing"
        )
        return f"it says\n{self.root.inner_text()}\n\nits controls raised\n{errors}"

    def _controls_without_tab(self) -> list[str]:
        """The controls that keep no focus on a walk with Tab, from the cell through the view and
        out of it."""
        _choose_cell(self)
        self.root.evaluate("() => { window.walked = new Set() }")
        for _ in range(MOST_TABS):
            self.page.keyboard.press("Tab")
            if not self.root.evaluate(WALK) and self.root.evaluate("() => window.walked.size > 0"):
                break
        return self.root.evaluate(MISSED)


def looks_like(picture: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether the means of all 16 x 16 squares agree within 40 of 255; sizes may differ by two
    pixels."""
    if any(abs(a - b) > 2 for a, b in zip(picture.shape, wanted.shape, strict=True)):
        return False
    rows, columns = (
        min(a, b) // 16 * 16 for a, b in zip(picture.shape[:2], wanted.shape[:2], strict=True)
    )
    squares = [
        image[:rows, :columns].reshape(rows // 16, 16, columns // 16, 16, 3).mean(axis=(1, 3))
        for image in (picture, wanted)
    ]
    return bool(np.abs(squares[0] - squares[1]).max() <= 40)


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
