"""Chapter 04b in the browser: TensorBoard opens inside the notebook."""

import pytest
from notebook_page import find_view
from playwright.sync_api import expect


@pytest.fixture(scope="module")
def page(open_chapter):
    return open_chapter("04b")


def test_tensorboard_opens_inside_the_notebook_with_both_losses(page):
    view = find_view(page)
    board = view.root.frame_locator('iframe[title="TensorBoard"]')
    for tag in ("train/loss", "eval/loss"):
        expect(board.get_by_text(tag, exact=True).first).to_be_visible(timeout=30_000)
