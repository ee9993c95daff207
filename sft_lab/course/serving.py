"""A model behind an OpenAI-compatible server on this machine: `transformers serve`, started,
waited for, and always ended.

    with serving(folder) as server:
        client = OpenAI(base_url=server.url, api_key="unused")

The server listens on the loopback alone, fetches nothing and runs no code of a model's own. It is a
process of its own, and ends when the notebook does, however that ends.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOST = "127.0.0.1"
# Runs `transformers serve` and ends with whoever started it: the pipe of its input closes then,
# also when that process was killed.
PROGRAM = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
from transformers.cli.transformers import main
sys.argv[0] = "transformers"
main()
"""


class ServerError(RuntimeError):
    """A server that did not start; the message is what it wrote last."""


class Server:
    """A running `transformers serve`. url: what a client takes as `base_url`."""

    def __init__(self, process: subprocess.Popen, port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.url = f"http://{HOST}:{port}/v1"

    def is_ready(self) -> bool:
        """Whether it answers its health check. ServerError when the process has ended."""
        if self.process.poll() is not None:
            raise ServerError(
                f"the server ended with code {self.process.returncode}: {self.tail()}"
            )
        try:
            with _open(f"http://{HOST}:{self.port}/health", seconds=5) as reply:
                return json.load(reply).get("status") == "ok"
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def wait(self, *, seconds: float = 120) -> "Server":
        """Return once it is ready. ServerError, with the server ended, when that takes longer."""
        end = time.monotonic() + seconds
        try:
            while not self.is_ready():
                if time.monotonic() > end:
                    raise ServerError(f"not ready after {seconds:.0f} s: {self.tail()}")
                time.sleep(0.1)
        except BaseException:  # an interrupt as well: nothing may be left running
            self.stop()
            raise
        return self

    def tail(self, *, lines: int = 5) -> str:
        """What the server wrote last."""
        text = self.log.read_text("utf-8", "replace") if self.log.exists() else ""
        return "\n".join(text.strip().splitlines()[-lines:]) or "it wrote nothing"

    def stop(self) -> None:
        """End the process, if it still runs, and remove its log."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()
        self.log.unlink(missing_ok=True)
        atexit.unregister(self.stop)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def start_server(
    folder: Path | str | None = None, *, port: int | None = None, dtype: str = "float32"
) -> Server:
    """Start `transformers serve` in the background and return at once; `.wait()` until it is ready
    (some 15 s, most of them imports).

    folder: the one model that it serves; any other name is then refused. None: it loads whatever
    folder a request names, which is for experiments only. port: a free one unless given. dtype: the
    number format of the weights.
    """
    port = port or free_port()
    descriptor, log = tempfile.mkstemp(prefix="sft_lab_server_", suffix=".log")
    arguments = [] if folder is None else [str(folder)]
    arguments += ["--host", HOST, "--port", str(port), "--device", "cpu", "--dtype", dtype]
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with os.fdopen(descriptor, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "serve", *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | offline,
        )
    server = Server(process, port, Path(log))
    atexit.register(server.stop)
    return server


@contextmanager
def serving(folder: Path | str | None = None, *, seconds: float = 120) -> Iterator[Server]:
    """A server that is ready inside the block and gone after it, whatever happens there."""
    server = start_server(folder)
    try:
        yield server.wait(seconds=seconds)
    finally:
        server.stop()


def _open(url: str, *, seconds: float):
    """An answer from this machine, past any proxy that the environment names."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=seconds)
