"""Takes the requests that other processes pass on, and has the application answer them."""

import io
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import falcon

from app.isolation import own_sockets
from app.isolation.frames import (
    PART_BYTES,
    Channel,
    ChannelClosedError,
    Kind,
    MalformedFrameError,
    pack_json,
    pack_wanted,
    unpack_json,
)
from app.isolation.runtime_folder import is_ours
from app.threads import start_thread

log = logging.getLogger(__name__)

FORWARDED = "benana.forwarded"
"""Where the environment of a request that another process has passed on says so."""

BACKLOG = 512

ACCEPT_PAUSE_SECONDS = 0.1
"""How long nothing is taken when the system has no more descriptors."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Forwarded:
    """Says of a request that it was passed on; whoever does not run its plugin sets `refused`."""

    def __init__(self, wait: float, channel: Channel) -> None:
        """Make it.

        Args:
            wait: how many seconds it may wait.
            channel: where it came from.
        """
        self.wait = wait
        self.refused = False
        self._channel = channel

    def hold(self) -> None:
        """Tell that the plugin is not called yet."""
        with suppress(ChannelClosedError):  # who sends the answer finds it closed
            self._channel.send(Kind.HELD)

    def begin(self) -> None:
        """Tell that the plugin is called from now on."""
        with suppress(ChannelClosedError):
            self._channel.send(Kind.BEGUN)


class ForwardServer:
    """Answers the requests for one plugin at a Unix socket: `start`, then `close`.

    A connection has a thread of its own: there are never more of them than the other processes
    have threads that answer requests.
    """

    def __init__(
        self, plugin: str, path: Path, app: Application, on_end: Callable[[], None] = lambda: None
    ) -> None:
        """Make it; nobody is heard yet.

        Args:
            plugin: whose requests they are; for the names of threads, and the log.
            path: where the socket is to be. Only who holds the plugin's lock may make it.
            app: answers them; the request's route is looked up in its current table.
            on_end: is called by each thread that has answered requests, at its end.
        """
        self._on_end = on_end
        self._plugin = plugin
        self._path = path
        self._app = app
        self._lock = threading.Lock()
        self._idle: set[Channel] = set()
        self._closed = False
        self._listener: socket.socket | None = None
        self._made: os.stat_result | None = None

    def start(self) -> None:
        """Make the socket and take requests; OSError if it cannot be made."""
        with suppress(FileNotFoundError):
            self._path.unlink()  # of a process that has ended
        listener = own_sockets.note(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            listener.bind(str(self._path))
            self._path.chmod(0o600)
            self._made = self._path.stat()
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        start_thread(f"benana-forwarded-{self._plugin}", self._accept, listener)

    def close(self) -> None:
        """Take no more requests; those that have begun are answered."""
        with self._lock:
            self._closed = True
            idle = list(self._idle)
        if self._listener is not None:
            with suppress(OSError):  # by now it may be another process's
                if self._made is not None and os.path.samestat(self._made, self._path.stat()):
                    self._path.unlink()
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes its thread
            self._listener.close()
        for channel in idle:
            channel.hang_up()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if not self._closed:  # too many open files, for a moment
                    log.warning("%s: a request cannot be taken: %s", self._plugin, error)
                    time.sleep(ACCEPT_PAUSE_SECONDS)
                continue
            try:
                start_thread(f"benana-forwarded-{self._plugin}", self._serve, connection)
            except RuntimeError as error:  # no more threads: the other process waits, or asks again
                log.warning("%s: a request cannot be taken: %s", self._plugin, error)
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        if not is_ours(connection):
            log.error("%s: a process of another user was turned away", self._plugin)
            connection.close()
            return
        channel = Channel(connection)
        try:
            while self._may_wait(channel):
                kind, payload = channel.receive()
                if kind is not Kind.REQUEST:
                    raise MalformedFrameError(f"{kind.name} where a request was due")
                with self._lock:
                    self._idle.discard(channel)
                    closed = self._closed
                if closed:
                    channel.send(Kind.REFUSED)
                else:
                    self._answer(channel, payload)
        except ChannelClosedError as error:
            log.debug("%s: %s", self._plugin, error)
        except MalformedFrameError as error:
            log.warning("%s: a connection is closed: it brought %s", self._plugin, error)
        except Exception:
            log.exception("%s: a request that was passed on failed", self._plugin)
        finally:
            with self._lock:
                self._idle.discard(channel)
            channel.close()
            self._on_end()

    def _may_wait(self, channel: Channel) -> bool:
        with self._lock:
            if self._closed:
                return False
            self._idle.add(channel)
            return True

    def _answer(self, channel: Channel, payload: bytes) -> None:
        forwarded, env = _environment(channel, payload)
        begun: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> None:
            begun[:] = [status, headers]

        forwarded.begin()
        body = self._app(env, start_response)
        try:
            if forwarded.refused:
                channel.send(Kind.REFUSED)
            else:
                status, headers = begun
                self._send(channel, status, headers, body)
        finally:
            close = getattr(body, "close", None)
            if close is not None:
                close()

    def _send(
        self, channel: Channel, status: str, headers: list[tuple[str, str]], body: Iterable[bytes]
    ) -> None:
        length = sum(map(len, body)) if isinstance(body, list) else None
        if length is not None and length > PART_BYTES:
            length = None  # nor is it to be in the other process's memory as a whole
        frames = [
            (Kind.ANSWER, pack_json({"status": status, "headers": headers, "length": length}))
        ]
        try:
            if length is None:  # a stream's first part may come late
                channel.send_all(frames)
                frames = []
            for part in body:
                for start in range(0, len(part), PART_BYTES):
                    frames.append((Kind.PART, part[start : start + PART_BYTES]))
                    if length is None:
                        channel.send_all(frames)
                        frames = []
        except ChannelClosedError:
            raise
        except Exception as error:
            log.exception("%s: an answer broke off", self._plugin)
            channel.send(Kind.FAILED, f"{type(error).__name__}: {error}".encode()[:1000])
            raise ChannelClosedError("an answer broke off") from None
        channel.send_all([*frames, (Kind.END, b"")])


class ForwardedBody(io.RawIOBase):
    """The body of a request that is read in the process which the client talks to."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer at the end alone; all without a size.

        Raises:
            falcon.HTTPBadRequest: the body is malformed, or ends too early.
        """
        return self._gather(size, line=False)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line of at most `size` bytes; raises as `read` does."""
        return self._gather(size, line=True)

    def _gather(self, size: int | None, *, line: bool) -> bytes:
        left = size if size is not None and size >= 0 else None
        parts: list[bytes] = []
        while left is None or left > 0:
            part = self._pull(PART_BYTES if left is None else left, line=line)
            if not part:
                break
            parts.append(part)
            if left is not None:
                left -= len(part)
            if line and part.endswith(b"\n"):
                break
        return b"".join(parts)

    def _pull(self, size: int, *, line: bool) -> bytes:
        try:
            self._channel.send(Kind.WANT, pack_wanted(line=line, size=min(size, PART_BYTES)))
            kind, payload = self._channel.receive()
        except ChannelClosedError as error:
            raise OSError(f"the process that took the request ended: {error}") from None
        if kind is Kind.BODY:
            return payload
        said = payload.decode(errors="replace") if kind is Kind.BROKEN else "It cannot be read."
        raise falcon.HTTPBadRequest(title="Broken body", description=said)


def _environment(channel: Channel, payload: bytes) -> tuple[Forwarded, dict[str, Any]]:
    """Return a request as WSGI has it, and what says that it was passed on."""
    request = unpack_json(payload)
    texts, wait = request.get("env"), request.get("wait")
    if not isinstance(texts, dict) or not isinstance(wait, int | float):
        raise MalformedFrameError("a request without an environment")
    if not {"REQUEST_METHOD", "PATH_INFO", "wsgi.url_scheme"} <= texts.keys():
        raise MalformedFrameError("a request without a method, a path and a scheme")
    forwarded = Forwarded(float(wait), channel)
    return forwarded, {
        **texts,
        "wsgi.version": (1, 0),
        "wsgi.input": ForwardedBody(channel),
        "wsgi.input_terminated": bool(request.get("terminated")),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        FORWARDED: forwarded,
    }
