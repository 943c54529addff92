"""A headless Chromium that tests look at pages with, spoken to over its debugging pipe: no driver is needed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

#: What the browser is called where it is installed; the environment's CHROME_BIN names another.
_NAMES = ("chromium-headless-shell", "headless_shell", "chromium", "chromium-browser", "google-chrome", "chrome")
_PATIENCE = 60.0


def find_browser() -> str | None:
    """The path of a Chromium, where there is one."""
    return next(
        (path for name in (os.environ.get("CHROME_BIN"), *_NAMES) if name and (path := shutil.which(name))), None
    )


class Browser:
    """One page of a browser that ends with the ``with`` block.

    Parameters
    ----------
    path : str
        Of the program.
    """

    def __init__(self, path: str) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="nearfar-browser-", ignore_cleanup_errors=True)
        (theirs_in, self._out), (self._in, theirs_out) = os.pipe(), os.pipe()
        words = [path, "--headless", "--remote-debugging-pipe", f"--user-data-dir={self._home.name}", "--disable-gpu"]
        words += ["--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"]
        words += ["--no-sandbox", "--no-zygote"] if os.geteuid() == 0 else []

        def descriptors() -> None:  # of the protocol: it reads from 3 and writes to 4
            kept_in, kept_out = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(kept_in, 3)
            os.dup2(kept_out, 4)

        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [*words, "about:blank"],
            preexec_fn=descriptors,
            close_fds=False,
            start_new_session=True,
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._left, self._number, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with contextlib.suppress(ProcessLookupError):  # those it started may outlive it, and write to its folder
            os.killpg(self._process.pid, signal.SIGKILL)
        os.close(self._in)
        os.close(self._out)
        self._home.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Have the browser do something; what happens meanwhile is kept in ``events``."""
        self._number += 1
        said: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            said["sessionId"] = self._session
        os.write(self._out, json.dumps(said).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._in], [], [], _PATIENCE)
            part = os.read(self._in, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError("the browser does not answer")
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return dict(json.loads(message))

    def open(self, page: Path, *, width: int, height: int = 800, dark: bool = False) -> None:
        """Show a file in a window of so many pixels, and wait until all of it is there."""
        self.events.clear()
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.resolve().as_uri())
        while self.evaluate("document.readyState") != "complete":
            time.sleep(0.02)

    def evaluate(self, script: str) -> Any:
        """The value of an expression, of which a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def press(self, key: str, *, code: int, text: str = "") -> None:
        """Press and release a key; ``code`` is its virtual key code."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    @property
    def asked(self) -> list[str]:
        """The addresses that the page wanted since it was opened."""
        wanted = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in wanted]

    @property
    def complaints(self) -> list[str]:
        """What the browser had to say of the page since it was opened."""
        methods = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in methods]
