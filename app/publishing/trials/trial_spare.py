"""The next trial's process, forked ahead and warm.

A fork copies the tables of the memory, and the child pays for each page that it writes to first:
1,400 of them, more than half of what a trial takes. A process that waits has paid: it has tried a
small plugin itself. It is made while no trial runs, so nobody waits for it.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

SPARE_SECONDS = 0.1
"""How long no trial has run before one is made: the last one's version is being loaded by now."""

MAX_REQUEST_BYTES = 64 * 1024

# macOS has no SEQPACKET; there a message ends where its file descriptors do.
MESSAGES = socket.SOCK_SEQPACKET if sys.platform == "linux" else socket.SOCK_STREAM
"""The kind of the sockets that requests come over."""


class Spare:
    """The process that waits for a trial, if there is one; for the trials' server, in one thread.

    `make_when_due` makes it, `take` gives it a trial to run.
    """

    def __init__(self, warm: Callable[[], None], run: Callable[..., None]) -> None:
        """Make it; no process yet.

        Args:
            warm: what the process does first.
            run: what it does with a request and its descriptors; never returns.
        """
        self._warm = warm
        self._run = run
        self._due: float | None = time.monotonic()
        self._socket: socket.socket | None = None
        self.pid = 0
        """The process, 0 if there is none."""

    def due_in(self) -> float | None:
        """Return in how many seconds one is to be made; None if there is one, or none is wanted."""
        return None if self._due is None or self.pid else max(0.0, self._due - time.monotonic())

    def want(self) -> None:
        """Note that a trial has run until now: another spare is made some time after it."""
        self._due = time.monotonic() + SPARE_SECONDS

    def make_when_due(self, begin: Callable[[], None]) -> None:
        """Fork it, if it is time to; `begin` is what the new process does at once."""
        if self.due_in() != 0.0:
            return
        self._due = None  # one that ends by itself is not made again and again
        ours, theirs = socket.socketpair(socket.AF_UNIX, MESSAGES)
        with theirs:
            try:
                self.pid = os.fork()
            except OSError:
                ours.close()
                return  # no process is left just now: a trial forks its own, or says so
            if self.pid == 0:
                self._wait(begin, ours, theirs)
        self._socket = ours

    def take(self, request: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Let it run a trial.

        Args:
            request: the trial's request.
            descriptors: what `run` is given after it.

        Returns:
            The process, which is no spare any more; 0 if there was none.
        """
        if self._socket is None:
            return 0
        pid, self.pid = self.pid, 0
        with self._socket as ours:
            self._socket = None
            try:
                socket.send_fds(ours, [json.dumps(request).encode()], descriptors)
            except OSError:
                return 0  # it has ended
        return pid

    def reap(self) -> None:
        """Note it if the process has ended."""
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = 0
            self.close()

    def close(self) -> None:
        """Close the way to the process, which ends it; in a fork only the fork's own copy."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _wait(self, begin: Callable[[], None], ours: socket.socket, theirs: socket.socket) -> None:
        """Wait for a trial in the process that was forked; never returns."""
        try:
            begin()
            ours.close()
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)  # the way to the server's parent
            os.close(null)
            with suppress(OSError):  # no room for temporary files, say: then it is not warm
                self._warm()
            message, descriptors, _, _ = socket.recv_fds(theirs, MAX_REQUEST_BYTES, 8)
            theirs.close()
            if message:
                self._run(json.loads(message), *descriptors)
        finally:
            os._exit(0)
