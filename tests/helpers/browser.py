"""A browser without windows, by chromedriver's HTTP and JSON: no package of Python's is needed."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.waiting import PATIENCE_S

PROGRAMS = ("chromium", "chromedriver")
"""Debian's names."""

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> list[str]:
    """Returns the programs that are not there."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


class Browser:
    """A session of the browser."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Sends a command of the WebDriver protocol, and returns its value."""
        data = json.dumps(body).encode() if method == "POST" else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()[:500]}") from None

    def open(self, page: Path) -> None:
        """Loads a file."""
        self.call("POST", "/url", url=page.as_uri())

    def run(self, script: str, *arguments: object) -> Any:
        """Runs JavaScript and returns what it returns."""
        return self.call("POST", "/execute/sync", script=script, args=list(arguments))

    def text(self, element: str) -> str:
        """Returns the text of the element of an id."""
        return self.run("return document.getElementById(arguments[0]).textContent", element)

    def resize(self, width: int, height: int) -> None:
        """Gives the page a size in CSS pixels, below the narrowest window too."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def devtools(self, command: str, **parameters: object) -> Any:
        """Sends a command of the browser's own protocol."""
        return self.call("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def pointer(self, kind: str, x: float, y: float, press: bool = False) -> None:
        """Moves a mouse, or puts down a finger, at a place of the window; presses it where asked."""
        steps: list[dict[str, object]] = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}]
        if press:
            steps += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        source = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}
        self.call("POST", "/actions", actions=[source])

    def press(self, key: str) -> None:
        """Presses a key, by its code in the WebDriver protocol."""
        steps = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.call("POST", "/actions", actions=[{"type": "key", "id": "keyboard", "actions": steps}])

    def console(self) -> list[str]:
        """Returns what the page said on its console since this was last asked, errors of loading too."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.call("POST", "/se/log", type="browser")]

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Writes a picture of the window, or of the whole page."""
        picture = self.devtools("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(picture))


@contextmanager
def browser(profile: Path, flags: Sequence[str] = ()) -> Iterator[Browser]:
    """Starts a browser with an empty profile, and ends it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = Browser(f"http://127.0.0.1:{port}")
    try:
        _wait(server)
        options = {"args": [*_FLAGS, f"--user-data-dir={profile}", *flags], "binary": shutil.which("chromium")}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = server.call("POST", "/session", capabilities={"alwaysMatch": wanted})
        page = Browser(f"{server.url}/session/{session['sessionId']}")
        try:
            yield page
        finally:
            page.call("DELETE", "")
    finally:
        driver.terminate()
        driver.wait(timeout=PATIENCE_S)


def _wait(server: Browser) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            server.call("GET", "/status")
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
