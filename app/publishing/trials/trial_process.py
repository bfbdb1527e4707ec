"""The process that trials are forked from, as its parent sees it; see `trial_server`."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, NamedTuple

from app.errors import SupersededError
from app.publishing.trials.trial_spare import MESSAGES

START_SECONDS = 20.0
"""How much later than its own deadline a trial's server may answer, before it counts as lost."""

COMMITTED_SECONDS = 1.0
"""A trial that has taken less goes on, though its source has changed again."""

LOOK_SECONDS = 0.1
"""How often a waiting thread looks whether its trial is superseded."""

MAX_REPORT_BYTES = 8 * 1024 * 1024


class Answer(NamedTuple):
    """What a child reported, and how it ended; None where its server was lost with it."""

    report: str
    end: dict[str, Any] | None


class TrialProcess:
    """Starts the server process when it is needed, and has it fork children that do as asked.

    Safe to use from several threads at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    @property
    def is_stopped(self) -> bool:
        """Whether it was ended for good."""
        return self._stopped

    def prepare(self) -> None:
        """Start the server process now, so that the first child does not wait for it."""
        with self._lock:
            if self._control is None and not self._stopped:
                self._start()

    def stop(self) -> None:
        """End the server process for good: what is under way is given up, and says nothing."""
        with self._lock:
            self._stopped = True
        self.close()

    def ask(
        self,
        request: dict[str, Any],
        files: tuple[IO[bytes], IO[bytes]],
        seconds: float,
        give_up: threading.Event,
        reported: Callable[[str], object] | None = None,
    ) -> Answer:
        """Have a child do something, and wait for its end.

        Args:
            request: what it is to do, as JSON.
            files: two files that it is given.
            seconds: how long it may take.
            give_up: ends the wait, once it is set and a second has passed.
            reported: is called with the report once it is whole, while the child ends.

        Raises:
            SupersededError: it was given up, or the server stops.
            OSError: the system has no process or no descriptor left.
        """
        report_read, report_write = os.pipe()
        status_read, status_write = os.pipe()
        with os.fdopen(report_read, "rb") as report, os.fdopen(status_read, "rb") as status:
            try:
                fds = [file.fileno() for file in files]
                process = self._send(request, [*fds, report_write, status_write])
            finally:
                os.close(report_write)
                os.close(status_write)
            deadline = time.monotonic() + seconds + START_SECONDS
            text, end = _read_both(report.fileno(), status.fileno(), deadline, give_up, reported)
        if end:
            return Answer(text.decode(errors="replace"), json.loads(end))
        if self._stopped:
            raise SupersededError("the server stops")
        self._drop(process)  # it was killed, or hangs: that says nothing of the plugin
        return Answer("", None)

    def _drop(self, process: "subprocess.Popen[bytes] | None") -> None:
        """Close what a trial was lost with, unless another thread has started anew already."""
        with self._lock:
            if self._process is not process:
                return
        self.close()

    def close(self) -> None:
        """End the server process and with it all children; the next request starts a new one."""
        with self._lock:
            control, self._control = self._control, None
            process, self._process = self._process, None
        if control is not None:
            # A child that a plugin has forked holds a copy, which closing does not end.
            with suppress(OSError):
                control.shutdown(socket.SHUT_RDWR)
            control.close()
        if process is not None:
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _send(self, request: dict[str, Any], fds: list[int]) -> "subprocess.Popen[bytes] | None":
        message = json.dumps(request).encode()
        for attempt in (1, 2):
            with self._lock:
                if self._stopped:
                    raise SupersededError("the server stops")
                if self._control is None:
                    self._start()
                assert self._control is not None  # noqa: S101 - for the type checker
                try:
                    socket.send_fds(self._control, [message], fds)
                    return self._process
                except OSError:
                    if attempt == 2:
                        raise
            self.close()  # it was killed: start another
        raise AssertionError("the second attempt returns or raises")

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, MESSAGES)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app.publishing.trials.trial_server"],
                stdin=theirs.fileno(),
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            )
        self._control = ours


def _read_both(
    report: int,
    status: int,
    deadline: float,
    give_up: threading.Event,
    reported: Callable[[str], object] | None,
) -> tuple[bytes, bytes]:
    """Read the report and the status until the status pipe is closed; see `TrialProcess.ask`."""
    may_give_up = time.monotonic() + COMMITTED_SECONDS
    poll = select.poll()
    poll.register(report, select.POLLIN)
    poll.register(status, select.POLLIN)
    parts: dict[int, bytearray] = {report: bytearray(), status: bytearray()}
    open_fds = {report, status}
    while status in open_fds:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        if give_up.is_set() and time.monotonic() >= may_give_up:
            raise SupersededError("the source changed again while it was tried")
        for fd, _ in poll.poll(min(left, LOOK_SECONDS) * 1000):
            chunk = os.read(fd, 65536)
            if not chunk:
                poll.unregister(fd)
                open_fds.discard(fd)
            elif len(parts[fd]) < MAX_REPORT_BYTES:
                parts[fd] += chunk
                if fd == report and reported is not None and chunk.endswith(b"}\n"):
                    reported(parts[report].decode(errors="replace"))
                    reported = None
    if report in open_fds:  # what the child wrote before its end is in the pipe
        os.set_blocking(report, False)
        with suppress(BlockingIOError):
            while len(parts[report]) < MAX_REPORT_BYTES and (chunk := os.read(report, 65536)):
                parts[report] += chunk
    return bytes(parts[report]), bytes(parts[status])
