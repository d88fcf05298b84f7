"""A real headless Chromium, driven over its DevTools pipe: no package and no driver is needed.

What it complains of (console, exceptions, refused content) and every address that it asks for are kept.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
HOW = f"no browser: install one of {', '.join(NAMES[:3])} (Debian: apt-get install chromium) and put it on the PATH"
_PATIENCE_S = 60


def find_browser() -> str | None:
    """The first Chromium on the PATH."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page. `complaints`: what the browser says is wrong; `asked`: addresses that it wanted to load."""

    def __init__(self, profile: Path, *arguments: str) -> None:
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self._numbers = itertools.count(1)
        self._waiting = b""
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        binary = find_browser()
        assert binary is not None, HOW
        command = [binary, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        command += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"]
        command += [f"--user-data-dir={profile}", "--window-size=1200,900", *arguments, "about:blank"]
        out_of, into = os.pipe(), os.pipe()  # the browser reads its descriptor 3 and writes its descriptor 4
        os.set_blocking(into[0], False)

        handed = ["sh", "-c", 'exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null', *command]
        self._process = subprocess.Popen(handed, stdin=out_of[0], stdout=into[1], stderr=subprocess.DEVNULL)
        os.close(out_of[0])
        os.close(into[1])
        self._in, self._out = out_of[1], into[0]

    def __enter__(self) -> Self:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def open(self, page: Path) -> None:
        """Shows a file and waits until it is loaded."""
        self._events.clear()
        self.call("Page.navigate", url=page.as_uri())
        self._until(lambda: any(event.get("method") == "Page.loadEventFired" for event in self._events))

    def run(self, script: str) -> Any:
        """The value of an expression in the page, as JSON. The page's own policy does not bind it."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def click(self, selector: str) -> None:
        """A press of the mouse in the middle of an element, wherever it stands."""
        middle = f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView("
        middle += "{block: 'center', inline: 'center'}); const r = e.getBoundingClientRect();"
        x, y = self.run(f"{middle} return [r.x + r.width / 2, r.y + r.height / 2] }})()")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """A key, such as Enter, for what has the focus."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=13, **text)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its answer."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            answers.extend(event for event in self._events if event.get("id") == number)
            return bool(answers)

        self._until(answered)
        assert "error" not in answers[0], (method, answers[0]["error"])
        return dict(answers[0]["result"])

    def _until(self, condition: Any) -> None:
        end = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < end, "the browser does not answer"
            assert self._process.poll() is None, "the browser ended"
            self._read()

    def _read(self) -> None:
        try:
            self._waiting += os.read(self._out, 1 << 20)
        except BlockingIOError:
            time.sleep(0.005)
        *whole, self._waiting = self._waiting.split(b"\0")
        for event in map(json.loads, whole):
            self._events.append(event)
            self._keep(event.get("method", ""), event.get("params", {}))

    def _keep(self, method: str, says: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(says["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(json.dumps(says["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(says["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.asked.append(says["request"]["url"])
