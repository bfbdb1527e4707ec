"""Passes a request on to the process that runs its plugin, and its answer back."""

import logging
import socket
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import falcon

from app.isolation.frames import (
    Channel,
    ChannelClosedError,
    Kind,
    MalformedFrameError,
    pack_json,
    unpack_json,
    unpack_wanted,
)
from app.isolation.runtime_folder import is_ours
from app.loading.event_streams import MEDIA_EVENTS
from app.loading.streamed_answers import EndableStream

log = logging.getLogger(__name__)

CONNECT_SECONDS = 2.0

MAX_IDLE = 64
"""How many connections are kept for the next requests."""

_OK = "200 OK"


class Forwarder:
    """Forwards the requests of one plugin; safe to use from several threads at once."""

    def __init__(self, plugin: str, path: Path) -> None:
        """Make it; nothing is connected.

        Args:
            plugin: whose requests they are.
            path: the socket of the process that runs it.
        """
        self._plugin = plugin
        self._path = str(path)
        self._lock = threading.Lock()
        self._idle: deque[Channel] = deque()

    def forward(self, req: falcon.Request, resp: falcon.Response, wait: float) -> bool:
        """Have a request answered by the other process.

        Args:
            req: the request.
            resp: gets the answer.
            wait: how many seconds the other process may let it wait for the plugin.

        Returns:
            Whether it was answered; if not, nobody has begun with it.

        Raises:
            falcon.HTTPBadGateway: the other process ended, or failed, after it had begun.
        """
        request = pack_json(_request_of(req.env, wait))
        while True:
            channel, kept = self._begin(request)
            if channel is None:
                return False
            try:
                begun, used = False, False
                try:
                    kind, payload = channel.receive()
                    while kind in {Kind.BEGUN, Kind.HELD}:
                        begun = kind is Kind.BEGUN
                        kind, payload = self._await_answer(channel, req.env)
                    if kind is Kind.ANSWER and begun:
                        used = self._take_answer(channel, req, resp, payload)
                        return True
                    if kind is not Kind.REFUSED:
                        raise MalformedFrameError(f"{kind.name} where an answer was due")
                    return False
                finally:
                    if not used:
                        channel.close()
            except ChannelClosedError:
                if begun:
                    raise self._lost("ended") from None
                if not kept:
                    return False  # its process ends
            except MalformedFrameError as error:
                raise self._lost(f"answered what is no answer ({error})") from None

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            idle, self._idle = list(self._idle), deque()
        for channel in idle:
            channel.close()

    def _begin(self, request: bytes) -> tuple[Channel | None, bool]:
        """Return a connection that has taken a request, and whether it was kept from another.

        None if there is nobody.
        """
        while True:
            with self._lock:
                channel = self._idle.pop() if self._idle else None
            kept = channel is not None
            if channel is None:
                channel = self._connect()
                if channel is None:
                    return None, kept
            try:
                channel.send(Kind.REQUEST, request)
            except ChannelClosedError:
                channel.close()
                if not kept:
                    return None, kept
            else:
                return channel, kept

    def _connect(self) -> Channel | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(CONNECT_SECONDS)
            connection.connect(self._path)
            connection.settimeout(None)
            if is_ours(connection):
                return Channel(connection)
            log.error("%s: %s is another user's; nothing is sent there", self._plugin, self._path)
        except OSError:
            pass  # nobody is there now, or he has more to do than he can take
        connection.close()
        return None

    def _await_answer(self, channel: Channel, env: dict[str, Any]) -> tuple[Kind, bytes]:
        """Return the frame that is no wish for the request's body; fulfil those."""
        while True:
            kind, payload = channel.receive()
            if kind is not Kind.WANT:
                return kind, payload
            send_body(channel, env["wsgi.input"], payload)

    def _take_answer(
        self, channel: Channel, req: falcon.Request, resp: falcon.Response, payload: bytes
    ) -> bool:
        """Put an answer into a response; return whether its connection is in use still."""
        answer = unpack_json(payload)
        try:
            status, headers, length = answer["status"], answer["headers"], answer["length"]
            whole = None if length is None else self._read_whole(channel, length)
            if status != _OK:
                resp.status = status
            for name, value in headers:
                if name.lower() == "set-cookie":
                    resp.append_header(name, value)
                else:
                    resp.set_header(name, value)
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedFrameError(f"an answer without {error}") from None
        if whole is not None:
            resp.data = whole
            self._keep(channel)
        else:
            events = (resp.content_type or "").startswith(MEDIA_EVENTS)
            kind = ForwardedEvents if events else ForwardedStream
            resp.stream = kind(self, channel, req.env, self._plugin)
        return True

    def _read_whole(self, channel: Channel, length: int) -> bytes:
        parts = []
        while True:
            kind, payload = channel.receive()
            if kind is Kind.END:
                break
            if kind is not Kind.PART:
                raise MalformedFrameError(f"{kind.name} in an answer")
            parts.append(payload)
        whole = b"".join(parts)
        if len(whole) != length:
            raise MalformedFrameError(f"an answer of {len(whole):,} bytes instead of {length:,}")
        return whole

    def _keep(self, channel: Channel) -> None:
        with self._lock:
            if len(self._idle) < MAX_IDLE:
                self._idle.append(channel)
                return
        channel.close()

    def _lost(self, what: str) -> falcon.HTTPBadGateway:
        text = (
            f"The process that runs the plugin {self._plugin!r} {what} before it had answered; the "
            "request may have had its effect."
        )
        log.error("%s: %s", self._plugin, text)
        return falcon.HTTPBadGateway(title="Bad Gateway", description=text)


class ForwardedStream:
    """The body of an answer that is still being made in the other process."""

    def __init__(
        self, forwarder: Forwarder, channel: Channel, env: dict[str, Any], plugin: str
    ) -> None:
        self._forwarder = forwarder
        self._channel: Channel | None = channel
        self._env = env
        self._plugin = plugin
        self._finished = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        channel = self._channel
        if channel is None:
            raise StopIteration
        try:
            kind, payload = self._forwarder._await_answer(channel, self._env)
        except (ChannelClosedError, MalformedFrameError) as error:
            self.close()
            if self._finished:
                raise StopIteration from None
            raise RuntimeError(
                f"{self._plugin}: the process that runs it ended within its answer ({error})"
            ) from None
        if kind is Kind.PART:
            return payload
        if kind is Kind.END:
            self._channel = None
            self._forwarder._keep(channel)
            raise StopIteration
        self.close()
        said = payload.decode(errors="replace") if kind is Kind.FAILED else kind.name
        raise RuntimeError(f"{self._plugin}: its answer broke off in its process: {said}")

    def close(self) -> None:
        """Let the other process know that nobody reads any more, unless it has ended its answer."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()


class ForwardedEvents(ForwardedStream, EndableStream):
    """A stream of events that is still being made in the other process."""

    def finish(self) -> None:
        """End it here, and let the other process know."""
        channel, self._finished = self._channel, True
        if channel is not None:
            channel.hang_up()  # if it is kept by now for another request, that takes a new one


def send_body(channel: Channel, body: Any, wanted: bytes) -> None:
    """Send what is wanted of a request's body.

    Raises:
        ChannelClosedError: nobody takes it.
        MalformedFrameError: what is wanted cannot be read.
    """
    line, size = unpack_wanted(wanted)
    try:
        part = body.readline(size) if line else body.read(size)
    except falcon.HTTPError as error:  # its own sentence: malformed, or shorter than announced
        channel.send(Kind.BROKEN, (error.description or "It cannot be read.").encode())
    except OSError as error:
        channel.send(Kind.BROKEN, f"The connection ended before the body did: {error}.".encode())
    else:
        channel.send(Kind.BODY, part)


def _request_of(env: dict[str, Any], wait: float) -> dict[str, Any]:
    """Return a WSGI environment as it is sent: all its texts, in which the whole request is."""
    return {
        "env": {name: value for name, value in env.items() if type(value) is str},
        "terminated": bool(env.get("wsgi.input_terminated")),
        "wait": wait,
    }
