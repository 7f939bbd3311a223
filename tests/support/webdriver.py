"""Headless Chromium for tests, driven through chromedriver's WebDriver protocol (W3C WebDriver, and Chromium's own
commands) with urllib.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from tests.support.programs import require

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--hide-scrollbars",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
# The key under which the protocol writes an element (W3C WebDriver, "Elements").
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_TIMEOUT_SECONDS = 60


class WebDriverError(Exception):
    """What chromedriver refused."""


class Element:
    """An element of the page that a browser shows."""

    def __init__(self, browser: Browser, identifier: str) -> None:
        self._browser = browser
        self._path = f"/element/{identifier}"
        self.reference = {_ELEMENT: identifier}

    @property
    def text(self) -> str:
        """The text as it is rendered."""
        return str(self._browser.command("GET", f"{self._path}/text"))

    def attribute(self, name: str) -> str | None:
        """Return an attribute as it stands in the document."""
        value = self._browser.command("GET", f"{self._path}/attribute/{name}")
        return None if value is None else str(value)

    def click(self) -> None:
        """Click on it; a page that this leads to may begin to load later."""
        self._browser.command("POST", f"{self._path}/click", {})

    def follow(self) -> None:
        """Click on what leads to another address, and wait until that is loaded."""
        before = self._browser.url
        self.click()
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        # The answer to each command waits for a page that is being loaded; but a form may be sent after the click was
        # answered.
        while self._browser.url == before:
            assert time.monotonic() < deadline, f"still at {before}"

    def write(self, text: str) -> None:
        """Type text into it."""
        self._browser.command("POST", f"{self._path}/value", {"text": text})


class Browser:
    """One browser session."""

    def __init__(self, driver: str, profile: str, *flags: str) -> None:
        options = {
            "args": [*_FLAGS, f"--user-data-dir={profile}", *flags],
            "binary": require("chromium", "chromium"),
            "perfLoggingPrefs": {"enableNetwork": True},
        }
        capabilities = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self._base = driver
        session = self._send("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._base = f"{driver}/session/{session['sessionId']}"

    def open(self, url: str) -> None:
        """Load a page."""
        self.command("POST", "/url", {"url": url})

    def back(self) -> None:
        """Go back to the page before."""
        self.command("POST", "/back", {})

    @property
    def url(self) -> str:
        """The address of the page."""
        return str(self.command("GET", "/url"))

    @property
    def title(self) -> str:
        """The title of the page."""
        return str(self.command("GET", "/title"))

    def find(self, selector: str) -> Element:
        """Return the first element that a CSS selector matches; fails when there is none."""
        return Element(self, self.command("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT])

    def find_all(self, selector: str) -> list[Element]:
        """Return all elements that a CSS selector matches."""
        return [
            Element(self, found[_ELEMENT])
            for found in self.command("POST", "/elements", {"using": "css selector", "value": selector})
        ]

    def link(self, text: str) -> Element:
        """Return the first link with this text."""
        return Element(self, self.command("POST", "/element", {"using": "link text", "value": text})[_ELEMENT])

    def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page; returns what it returns."""
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def finish(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page that calls done(value) sooner or later; returns the value."""
        return self.command(
            "POST",
            "/execute/async",
            {"script": f"const done = arguments[arguments.length - 1];\n{script}", "args": list(arguments)},
        )

    def wait(self, expression: str, *arguments: object) -> Any:
        """Evaluate an expression whenever the page draws, until it is true; returns its value. Fails after a while."""
        look = (
            f"const look = () => {{ const value = {expression}; value ? done(value) : requestAnimationFrame(look); }};"
        )
        return self.finish(f"{look} look();", *arguments)

    def type(self, keys: str) -> None:
        """Press keys, whatever has the focus."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def devtools(self, method: str, **parameters: object) -> Any:
        """Run a command of the Chrome DevTools Protocol."""
        return self.command("POST", "/goog/cdp/execute", {"cmd": method, "params": parameters})

    def resize(self, width: int, height: int) -> None:
        """Show pages as on a screen of this size in CSS pixels."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def prefer(self, scheme: str) -> None:
        """Prefer light or dark pages."""
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: str) -> None:
        """Save a picture of the whole page."""
        picture = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))

    def log(self, kind: str) -> list[Any]:
        """Return, once, what was logged since the last time: `browser` for the console, `performance` for DevTools
        events.
        """
        return list(self.command("POST", "/se/log", {"type": kind}))

    def requests(self) -> list[str]:
        """Return the addresses that were asked for since the last time."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def close(self) -> None:
        """End the session, and the browser with it."""
        self.command("DELETE", "")

    def command(self, method: str, path: str, body: object = None) -> Any:
        """Send a command of the session."""
        return self._send(method, path, body)

    def _send(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise WebDriverError(json.load(error)["value"]["message"]) from None


@contextlib.contextmanager
def browsing(*flags: str) -> Iterator[Browser]:
    """Run a browser with a fresh profile for a block; skips the test where there is none."""
    driver = require("chromedriver", "chromium-driver")
    require("chromium", "chromium")
    profile = tempfile.mkdtemp(prefix="vex-browser-")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if "was started successfully on port" in line)
        browser = Browser(f"http://127.0.0.1:{_port(line)}", profile, *flags)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
        shutil.rmtree(profile, ignore_errors=True)


def _port(line: str) -> int:
    return int(line.rpartition("port")[2].strip(" .\n"))
