"""Debian's chromium without a window, driven over a pipe (the DevTools protocol)."""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 60.0
"""How long a busy machine may take."""


class Page:
    """A page, and what its console and its network said."""

    def __init__(self, to: int, answers: int) -> None:
        self._to, self._answers = to, answers
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session = ""
        self.said: list[str] = []
        """What went to the console: errors, refused requests, what the policy forbids."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Open an address."""
        self._call("Page.navigate", url=url)

    def run(self, code: str) -> Any:
        """Run JavaScript in the page and return its value."""
        found = self._call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, code: str, what: str) -> Any:
        """Wait until JavaScript has a true value in the page, and return it."""
        return wait_until(lambda: self.run(code), f"{what}; {self.said}", SECONDS)

    def click(self, selector: str) -> None:
        """Click on an element, once it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"!!{found}", f"{selector} is there")
        self.run(f"{found}.click()")

    def text(self, selector: str) -> str:
        """Return what an element says, nothing where it is not there."""
        found = f"document.querySelector({json.dumps(selector)})"
        return str(self.run(f"{found}?.innerText") or "")

    def picture(self, place: Path) -> None:
        """Write what the page looks like to a file."""
        found = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        place.write_bytes(base64.b64decode(found["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            found = self._read(deadline)
            if found.get("id") == number:
                assert "error" not in found, found["error"]
                return found["result"]
            self._note(found)

    def _read(self, deadline: float) -> Any:
        while b"\0" not in self._rest:
            ready, _, _ = select.select(
                [self._answers], [], [], max(0, deadline - time.monotonic())
            )
            part = os.read(self._answers, 1 << 20) if ready else b""
            if not part:
                raise AssertionError(f"chromium says nothing; {self.said}")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: Any) -> None:
        said = event.get("params", {})
        if event.get("method") == "Log.entryAdded":
            self.said.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        elif event.get("method") == "Runtime.exceptionThrown":
            self.said.append(str(said["exceptionDetails"].get("exception", said)))


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """Give a page of a browser of its own, which ends with the block."""
    assert CHROMIUM is not None
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    def connect() -> None:
        # The protocol's pipes are the descriptors 3 and 4; these may be their own numbers.
        first, second = os.dup(to_read), os.dup(from_write)
        os.dup2(first, 3)
        os.dup2(second, 4)

    with tempfile.TemporaryDirectory(prefix="benana-browser-", ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            [
                CHROMIUM,
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--remote-debugging-pipe", f"--user-data-dir={home}", "--window-size=1200,1600"),
                *("--no-first-run", "--disable-background-networking", "--disable-extensions"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=connect,
            start_new_session=True,
            env={**os.environ, "HOME": home},
        )
        os.close(to_read)
        os.close(from_write)
        try:
            yield Page(to_write, from_read)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(to_write)
            os.close(from_read)
