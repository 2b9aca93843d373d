"""A headless Chromium for tests, spoken to by the DevTools protocol through a pipe."""

import base64
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find() -> str:
    """The browser's program; skips the test where there is none."""
    program = os.environ.get("CMTL_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium on PATH (or in CMTL_CHROMIUM)")
    return program


class Browser:
    """One page of a browser. Files that it downloads land in `downloads`."""

    def __init__(self, folder: pathlib.Path, width: int = 1280, height: int = 800):
        """Starts the browser with an empty profile.

        Args:
            folder: for profile and downloads.
            width: of the window, pixels.
            height: of the window, pixels.
        """
        self.downloads = folder / "downloads"
        self.downloads.mkdir(parents=True, exist_ok=True)
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        # The protocol's pipe is file descriptors 3 and 4 of the browser.
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage "
            "--remote-debugging-pipe --no-first-run --hide-scrollbars "
            f"--window-size={width},{height}"
        ).split()
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", find(), *flags,
             f"--user-data-dir={folder / 'profile'}", "about:blank"],
            pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(commands)
        os.close(answers)
        self._buffer, self._number, self._session = b"", 0, None
        self.problems: list[str] = []  # uncaught errors and console errors of the page
        self.requests: list[str] = []  # addresses that the page asked for
        try:
            self._attach(width, height)
        except BaseException:
            self.close()
            raise

    def _attach(self, width: int, height: int) -> None:
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = session["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def close(self) -> None:
        """Ends the browser."""
        with contextlib.suppress(Exception):
            self._session = None
            self._send("Browser.close", {})
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def _send(self, method: str, parameters: dict) -> int:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session and not method.startswith(("Target.", "Browser.")):
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        return self._number

    def call(self, method: str, timeout: float = 60, **parameters) -> dict:
        """The result of a command of the protocol."""
        number, deadline = self._send(method, parameters), time.monotonic() + timeout
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self, deadline: float) -> dict:
        while b"\0" not in self._buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([self._read], [], [], remaining)[0]:
                raise TimeoutError("the browser does not answer")
            data = os.read(self._read, 1 << 20)
            if not data:
                raise EOFError("the browser has ended")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if message.get("method") == "Runtime.exceptionThrown":
            details = message["params"]["exceptionDetails"]
            self.problems.append(str(details.get("exception", details).get("description", details)))
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] == "error":
                self.problems.append(f"{entry['text']} {entry.get('url', '')}")
        return message

    def open(self, url: str) -> None:
        """Goes to an address and waits until it is loaded."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str):
        """The value of an expression in the page; promises are awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str, timeout: float = 30) -> None:
        """Waits until an expression in the page is true."""
        deadline = time.monotonic() + timeout
        while not self.run(condition):
            assert time.monotonic() < deadline, f"never true: {condition}; {self.problems}"
            time.sleep(0.02)

    def choose(self, selector: str, *paths: os.PathLike) -> None:
        """Chooses files in a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        """A mouse event at a place of the window: mousePressed, mouseMoved, mouseReleased, ..."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def click(self, x: float, y: float, button: str = "left", modifiers: int = 0) -> None:
        """Presses and releases a button at a place of the window."""
        self.mouse("mouseMoved", x, y, modifiers=modifiers)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button=button, clickCount=1, modifiers=modifiers)

    def drag(self, x0: float, y0: float, x1: float, y1: float, steps: int = 4) -> None:
        """Moves the mouse with the left button held."""
        self.mouse("mouseMoved", x0, y0)
        self.mouse("mousePressed", x0, y0, button="left", clickCount=1)
        for i in range(1, steps + 1):
            x, y = x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps
            self.mouse("mouseMoved", x, y, button="left", buttons=1)
        self.mouse("mouseReleased", x1, y1, button="left", clickCount=1)

    def drop(self, x: float, y: float, *paths: os.PathLike) -> None:
        """Drops files or folders at a place of the window."""
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def key(self, key: str, modifiers: int = 0) -> None:
        """Presses and releases a key, named as in KeyboardEvent.key; modifiers 2: Control."""
        codes = {
            "Delete": 46, "Enter": 13, "ArrowRight": 39, "ArrowLeft": 37, "Escape": 27,
            "Backspace": 8, "?": 191,
        }  # fmt: skip
        code = codes.get(key, ord(key[0].upper()))
        text = {"text": key} if len(key) == 1 and not modifiers & 2 else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers,
                windowsVirtualKeyCode=code, **(text if kind == "keyDown" else {}),
            )  # fmt: skip

    def downloaded(self, name: str, timeout: float = 30) -> pathlib.Path:
        """The path of a file once its download is complete."""
        path, deadline = self.downloads / name, time.monotonic() + timeout
        while not path.exists() or list(self.downloads.glob("*.crdownload")):
            assert time.monotonic() < deadline, f"{name} was not downloaded; {self.problems}"
            time.sleep(0.02)
        return path

    def screenshot(self, path: os.PathLike) -> None:
        """Writes a PNG of the window."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))
