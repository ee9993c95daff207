"""LLaMA-Factory's page of buttons (`llamafactory-cli webui`) on the loopback, for a browser test.

Its controls are found by the names that stand beside them; each tab has its own, often of the same
name, so only what can be seen counts.
"""

import json
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab_server import ROOT
from playwright.sync_api import Locator, Page, Route

from sft_lab import atlas

ENVIRONMENT = ROOT / ".venv" / "llamafactory"
START = 120  # seconds for the page to answer; a quiet machine needs 12
TABS = ("Train", "Evaluate & Predict", "Chat", "Export")
ROWS = 64


@contextmanager
def running_board(folder: Path) -> Iterator[str]:
    """The page's address; it works in `folder`, where a model and a data set lie ready, and ends on
    leaving.

    It listens on this machine alone (by default it would on every network), counts nobody and opens
    no browser of its own. RuntimeError with the end of its log when it does not answer.
    """
    (folder / "atlas-base").symlink_to(ROOT / "data" / "models" / "atlas-base")
    _write_data(folder / "data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings = {
        "GRADIO_SERVER_NAME": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "BROWSER": "true",  # the command that it would open a browser with
        "PATH": f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    log = folder / "webui.log"
    with log.open("w", encoding="utf-8") as out:
        server = subprocess.Popen(
            [ENVIRONMENT / "bin" / "llamafactory-cli", "webui"],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=ours | settings,
        )
    try:
        yield _wait_for_page(server, f"http://127.0.0.1:{port}/", log)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _write_data(folder: Path) -> None:
    """Questions and answers of Atlas as a data set that LLaMA-Factory finds by the name atlas."""
    folder.mkdir()
    rows = [
        {"instruction": question["content"], "input": "", "output": answer["content"]}
        for question, answer in atlas.training_conversations()[:ROWS]
    ]
    (folder / "atlas.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    columns = {"prompt": "instruction", "query": "input", "response": "output"}
    info = {"atlas": {"file_name": "atlas.json", "columns": columns}}
    (folder / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def _wait_for_page(server: subprocess.Popen, url: str, log: Path) -> str:
    until = time.monotonic() + START
    while server.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return url
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.3)
    raise RuntimeError(
        f"webui did not start in {START} s; the end of its log:\n{log.read_text()[-3000:]}"
    )


class Board:
    """The page in a browser. `folder` is where it works, `asked` are the addresses outside this
    machine that it wanted, such as a font: they are refused."""

    def __init__(self, page: Page, url: str, folder: Path):
        self.page, self.url, self.folder = page, url, folder
        self.asked: list[str] = []
        page.route("**/*", self._only_here)
        page.goto(url)

    def _only_here(self, route: Route) -> None:
        if route.request.url.startswith((self.url, "data:", "blob:")):
            route.continue_()
        else:
            self.asked.append(route.request.url)
            route.abort()

    def _seen(self, locator: Locator) -> Locator:
        return locator.locator("visible=true").first

    def open(self, tab: str) -> None:
        self.page.get_by_role("tab", name=tab, exact=True).click()

    def press(self, name: str) -> None:
        self._seen(self.page.get_by_role("button", name=name, exact=True)).click()

    def unfold(self, name: str) -> None:
        self._seen(self.page.get_by_role("button", name=re.compile(f"^{re.escape(name)}"))).click()

    def write(self, label: str, text: str) -> None:
        """Into a text box."""
        self._seen(self.page.get_by_label(label)).fill(text)

    def number(self, label: str, value: int) -> None:
        """Into the number beside a slider."""
        box = self._seen(self.page.get_by_label(f"number input for {label}", exact=True))
        box.fill(str(value))
        box.blur()

    def choose(self, label: str, option: str) -> None:
        """From a list that drops down."""
        self._seen(self.page.get_by_label(label, exact=True)).click()
        self.page.get_by_role("option", name=option, exact=True).click()
        self.page.keyboard.press("Escape")

    def preview(self) -> dict[str, str]:
        """Press "Preview command"; the arguments of the command that it shows, by name."""
        old = self._seen(self.page.locator("code"))
        before = old.inner_text() if old.count() else ""
        self.press("Preview command")
        self.page.wait_for_function(
            """before => [...document.querySelectorAll('code')].some(
                el => el.checkVisibility() && el.innerText !== before
                      && el.innerText.startsWith('llamafactory-cli'))""",
            arg=before,
        )
        text = self._seen(self.page.locator("code")).inner_text()
        assert text.startswith("llamafactory-cli train")
        return dict(re.findall(r"--(\w+) (.*?) *\\?$", text, re.MULTILINE))
