"""The frames in which a request and its answer go from one process to another.

A frame is a byte for its kind, four bytes for its length (network order), and so many bytes. One
connection carries one request after the other. Whoever forwards sends REQUEST; whoever runs the
plugin answers with BEGUN, and then REFUSED, or ANSWER, PARTs and END; with HELD where the request
has to wait after all, until the next BEGUN. The body of a request is
pulled: WANT asks for so many bytes, BODY brings them, none at the end. So nothing piles up in
either process, and nobody waits for a reader who waits for him.

A process that ends before BEGUN has not begun: the request may be sent to another one. After it
nobody can tell, so it is not sent again.
"""

import enum
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from json import dumps, loads
from typing import Any

from app.isolation import own_sockets

MAX_BYTES = 4 * 1024 * 1024
"""The longest frame that is taken: a request's head is the longest, and gunicorn limits that."""

PART_BYTES = 64 * 1024
"""How much of a body is sent at once."""

_HEAD = struct.Struct("!BI")
_WANTED = struct.Struct("!?q")


class Kind(enum.IntEnum):
    """What a frame is."""

    REQUEST = 1
    """JSON: a WSGI environment, and how long it may wait."""
    BODY = 2
    """What was wanted of the request's body; nothing at its end."""
    BROKEN = 3
    """The request's body cannot be read to its end; the text says why."""
    BEGUN = 10
    """The plugin may have been called from now on."""
    HELD = 17
    """The plugin was not called yet: the request waits for it."""
    REFUSED = 11
    """The plugin does not run here, and was not called."""
    WANT = 12
    """Whether a line is wanted, and the most bytes to send of the request's body."""
    ANSWER = 13
    """JSON: status, headers, and the length of the body if it is known."""
    PART = 14
    """A part of the answer's body."""
    END = 15
    """The answer is complete."""
    FAILED = 16
    """The answer cannot be completed; the text says why."""


_KINDS = frozenset(Kind)


class ChannelClosedError(Exception):
    """The process at the other end is gone, or does not want any more."""


class MalformedFrameError(Exception):
    """What came is no frame, or not one that may come now."""


class Channel:
    """One end of a connection; for one thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = own_sockets.note(connection)
        self._file = connection.makefile("rb")

    def send(self, kind: Kind, payload: bytes = b"") -> None:
        """Send a frame.

        Raises:
            ChannelClosedError: nobody takes it.
        """
        self.send_all([(kind, payload)])

    def send_all(self, frames: list[tuple[Kind, bytes]]) -> None:
        """Send frames with one call of the system, if they are short.

        Raises:
            ChannelClosedError: nobody takes them.
        """
        raw = b"".join(_HEAD.pack(kind, len(load)) + load for kind, load in frames)
        try:
            self._connection.sendall(raw)
        except OSError as error:
            raise ChannelClosedError(error.strerror or str(error)) from None

    def receive(self) -> tuple[Kind, bytes]:
        """Return the next frame.

        Raises:
            ChannelClosedError: there is none.
            MalformedFrameError: it is none.
        """
        kind, length = _HEAD.unpack(self._read(_HEAD.size))
        if kind not in _KINDS or length > MAX_BYTES:
            raise MalformedFrameError(f"a frame of kind {kind} with {length:,} bytes")
        return Kind(kind), self._read(length)

    def close(self) -> None:
        """Close it; the other end notices."""
        # Shut down first: another thread may wait in it, and closing does not wake that.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._file.close()
        self._connection.close()

    def hang_up(self) -> None:
        """Have whoever waits for a frame find that there is none; it stays to be closed."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _read(self, size: int) -> bytes:
        try:
            raw = self._file.read(size)
        except OSError as error:
            raise ChannelClosedError(error.strerror or str(error)) from None
        if len(raw) < size:
            raise ChannelClosedError("the connection ended")
        return raw


def pack_json(content: Mapping[str, Any]) -> bytes:
    """Return what `unpack_json` reads; a text of Latin-1, as WSGI's, stays what it is."""
    return dumps(content, separators=(",", ":")).encode()


def unpack_json(payload: bytes) -> dict[str, Any]:
    """Return a frame's JSON.

    Raises:
        MalformedFrameError: it is no JSON object.
    """
    try:
        content = loads(payload)
    except ValueError as error:
        raise MalformedFrameError(f"a frame that is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise MalformedFrameError("a frame that is no JSON object")
    return content


def pack_wanted(*, line: bool, size: int) -> bytes:
    """Return the payload of WANT.

    Args:
        line: whether no more than a line is wanted.
        size: how many bytes at most.
    """
    return _WANTED.pack(line, size)


def unpack_wanted(payload: bytes) -> tuple[bool, int]:
    """Return whether a line is wanted, and how many bytes at most.

    Raises:
        MalformedFrameError: it says neither.
    """
    try:
        line, size = _WANTED.unpack(payload)
    except struct.error as error:
        raise MalformedFrameError(f"a wish that cannot be read: {error}") from None
    return line, min(max(size, 1), PART_BYTES)
