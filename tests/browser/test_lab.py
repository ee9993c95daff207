"""JupyterLab itself: only its token opens it, and every chapter with a view is tested here."""

import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from lab_server import ROOT


@pytest.mark.parametrize("query", ["", "?token=0123456789abcdef"])
def test_without_its_token_the_server_gives_nothing(lab, query):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{lab.url}api/contents{query}")
    assert b"jupyter-config-data" not in urllib.request.urlopen(f"{lab.url}lab{query}").read()


def test_with_its_token_the_server_opens_jupyterlab(lab):
    assert (
        b"jupyter-config-data" in urllib.request.urlopen(f"{lab.url}lab?token={lab.token}").read()
    )


def test_every_chapter_with_a_view_has_its_browser_test():
    shown = [
        path
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
        if any("show_widget(" in cell.source for cell in nbformat.read(path, as_version=4).cells)
    ]
    tested = {
        path.stem.removeprefix("test_ch") for path in Path(__file__).parent.glob("test_ch*.py")
    }
    assert shown and {path.name.partition("_")[0] for path in shown} - tested == set()
