"""A JupyterLab of its own for the browser tests, and the Chromium that opens it."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat
from execute_notebook import kernel_environment, strip_colors

__all__ = ["ROOT", "START", "Lab", "find_chromium", "running_lab", "strip_colors"]
ROOT = Path(__file__).resolve().parents[2]
START = 90  # seconds for JupyterLab to answer, and for its page to be ready
SETTINGS = {  # nothing that asks the network, or writes beside the person
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}


class Lab(NamedTuple):
    """A running JupyterLab: its address, the secret that opens it, and the folder it shows."""

    url: str
    token: str
    folder: Path


@contextmanager
def running_lab(scratch: Path) -> Iterator[Lab]:
    """JupyterLab with a fresh token on a free port, without the settings of who tests; ended on
    leaving.

    It shows copies of the notebooks without their outputs, so that whatever appears on the page was
    made there. RuntimeError with the end of the log when it does not answer.
    """
    folder, token = scratch / "notebooks", secrets.token_hex(24)
    folder.mkdir(parents=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.update(outputs=[], execution_count=None)
        nbformat.write(notebook, folder / path.name)
    places = {
        f"JUPYTER_{name}_DIR": str(scratch / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    places |= {
        f"JUPYTERLAB_{name}_DIR": str(scratch / name.lower()) for name in ("SETTINGS", "WORKSPACES")
    }
    for plugin, settings in SETTINGS.items():
        file = scratch / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(settings), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--port=0",
        "--expose-app-in-browser",
        f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={token}",
        "--LabApp.news_url=None",
        "--LabApp.extension_manager=readonly",
    ]
    if os.geteuid() == 0:
        command.append("--allow-root")
    log = scratch / "jupyterlab.log"
    with log.open("w", encoding="utf-8") as out:
        server = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=kernel_environment(scratch, ROOT, strict=False) | places,
        )
    try:
        yield Lab(_wait_for_server(server, scratch / "runtime", log), token, folder)
    finally:
        server.terminate()  # it ends its kernels first
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for_server(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    until = time.monotonic() + START
    while server.poll() is None and time.monotonic() < until:
        if (file := runtime / f"jpserver-{server.pid}.json").exists() and file.stat().st_size:
            return json.loads(file.read_text(encoding="utf-8"))["url"]
        time.sleep(0.2)
    raise RuntimeError(
        f"JupyterLab did not start in {START} s; the end of its log:\n{log.read_text()[-3000:]}"
    )


def find_chromium() -> str:
    """The path of an installed Chromium; FileNotFoundError where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if path := shutil.which(name):
            return path
    raise FileNotFoundError(
        "no Chromium on the PATH: install it (Debian: apt-get install chromium) or run make test"
    )
