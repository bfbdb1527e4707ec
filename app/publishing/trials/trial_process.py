"""The process that trials are forked from, as its parent sees it; see `trial_server`."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
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

    @contextmanager
    def ask(
        self,
        request: dict[str, Any],
        files: tuple[IO[bytes], IO[bytes]],
        seconds: float,
        give_up: threading.Event,
    ) -> "Iterator[Asked]":
        """Have a child do something; who leaves before its end gives it up.

        Args:
            request: what it is to do, as JSON.
            files: two files that it is given.
            seconds: how long it may take.
            give_up: ends a wait, once it is set and a second has passed.

        Raises:
            SupersededError: the server stops.
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
            pipes = _Pipes(report.fileno(), status.fileno(), deadline, give_up)
            yield Asked(pipes, partial(self._lost, process))

    def _lost(self, process: "subprocess.Popen[bytes] | None") -> None:
        """Close what a child was lost with: it was killed, or hangs.

        Raises:
            SupersededError: the server stops; that says nothing of the plugin.
        """
        if self._stopped:
            raise SupersededError("the server stops")
        self._drop(process)

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


class _Pipes:
    """What a child reports, and what its server says of its end, as they come."""

    def __init__(self, report: int, status: int, deadline: float, give_up: threading.Event) -> None:
        self.report = bytearray()
        self.status = bytearray()
        self._parts = {report: self.report, status: self.status}
        self._ends_with = status
        self._deadline = deadline
        self._give_up = give_up
        self._may_give_up = time.monotonic() + COMMITTED_SECONDS
        self._poll = select.poll()
        for fd in self._parts:
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)

    def has_report(self) -> bool:
        """Tell whether the last line of the report is there."""
        last_line = self.report.rfind(b"\n", 0, -1) + 1
        return self.report.endswith(b"\n") and self.report.startswith(b"{", last_line)

    def read(self, until: Callable[[], bool]) -> None:
        """Read what comes, until that is so, the child has ended, or its time is over.

        Raises:
            SupersededError: it was given up.
        """
        while self._ends_with in self._parts and not until():
            left = self._deadline - time.monotonic()
            if left <= 0:
                return
            if self._give_up.is_set() and time.monotonic() >= self._may_give_up:
                raise SupersededError("the source changed again while it was tried")
            if self._poll.poll(min(left, LOOK_SECONDS) * 1000):
                # The end first: what the child wrote before it is in the other pipe by then.
                for fd in reversed(list(self._parts)):
                    self._take(fd)

    def _take(self, fd: int) -> None:
        """Take all that is in a pipe."""
        part = self._parts[fd]
        with suppress(BlockingIOError):
            while chunk := os.read(fd, 65536):
                if len(part) < MAX_REPORT_BYTES:
                    part += chunk
            self._poll.unregister(fd)
            del self._parts[fd]


class Asked:
    """A child at its work; `report` and `answer` wait for it."""

    def __init__(self, pipes: _Pipes, lost: Callable[[], None]) -> None:
        self._pipes = pipes
        self._lost = lost

    def report(self) -> str:
        """Return what it has reported, once that is complete, or once it has ended.

        Raises:
            SupersededError: it was given up, or the server stops.
        """
        self._pipes.read(self._pipes.has_report)
        return self._pipes.report.decode(errors="replace")

    def answer(self) -> Answer:
        """Return what it has reported, and how it ended, once it has.

        Raises:
            SupersededError: it was given up, or the server stops.
        """
        self._pipes.read(lambda: False)
        if not self._pipes.status:
            self._lost()
            return Answer("", None)
        return Answer(self.report(), json.loads(self._pipes.status))
