"""What a client sends: a body is read to its end or refused.

A body that is malformed, or shorter than announced, is the client's fault: HTTP 400, whoever reads
it and by whichever way (`body`, `req.stream`, `req.bounded_stream`, `req.media`).
"""

import io
from collections.abc import Callable
from typing import Any, cast

import falcon
from falcon.stream import BoundedStream
from gunicorn.http.errors import ParseException

from app.loading.media import NO_END

_BLOCK = 64 * 1024


class RequestBody(io.BufferedIOBase):
    """A request's body, which ends where the server or its Content-Length says."""

    def __init__(self, source: Any, length: int | None) -> None:
        """Read from a WSGI server's input.

        Args:
            source: `wsgi.input`.
            length: its bytes; None where the server ends the input itself (`chunked`).
        """
        self._source = source
        self._length = length
        self._taken = 0
        self._ended = length == 0
        self._fault = ""

    def readable(self) -> bool:
        """Return True."""
        return True

    @property
    def eof(self) -> bool:
        """Whether the end has been read."""
        return self._ended

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer at the end alone; all without a size.

        Raises:
            falcon.HTTPBadRequest: the body is malformed, or ends too early.
        """
        return self._read(self._source.read, size, lambda part: False)

    def read1(self, size: int = -1, /) -> bytes:
        """Read `size` bytes, a block without a size."""
        return self.read(_BLOCK if size < 0 else size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line of at most `size` bytes.

        Raises:
            falcon.HTTPBadRequest: the body is malformed, or ends too early.
        """
        return self._read(self._source.readline, size, lambda part: part.endswith(b"\n"))

    def exhaust(self, chunk_size: int = _BLOCK) -> None:
        """Read what is left and forget it."""
        while self.read(chunk_size):
            pass

    def _read(
        self, read: Callable[[int], bytes], size: int | None, is_last: Callable[[bytes], bool]
    ) -> bytes:
        wanted = NO_END if size is None or size < 0 else size
        if self._length is not None:
            wanted = min(wanted, self._length - self._taken)
        parts = []
        while wanted > 0 and not self._ended:
            part = self._take(read, -1 if wanted > NO_END >> 1 else wanted)
            parts.append(part)
            wanted -= len(part)
            if is_last(part):
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take(self, read: Callable[[int], bytes], size: int) -> bytes:
        if not self._fault:
            try:
                part = read(size)
            except ParseException as error:
                self._fault = f"It is malformed: {error}."
            except OSError:
                self._fault = "The connection ended before the body did."
            else:
                self._taken += len(part)
                if part or self._length is None:
                    self._ended = not part or self._taken == self._length
                    return part
                self._fault = (
                    f"Found {self._taken:,} bytes, expected the {self._length:,} of Content-Length."
                )
        # Again at each further try: what comes after a fault would look like a whole body's end.
        raise falcon.HTTPBadRequest(title="Broken body", description=self._fault)


def wrap_input(env: dict[str, Any]) -> None:
    """Put a `RequestBody` into the environment of a request that has a body, once."""
    if type(env.get("wsgi.input")) is RequestBody:
        return
    length = env.get("CONTENT_LENGTH") or ""
    if "HTTP_TRANSFER_ENCODING" in env:
        if env.get("wsgi.input_terminated"):
            env["wsgi.input"] = RequestBody(env["wsgi.input"], None)
    elif length.isascii() and length.isdecimal() and len(length) < 19:
        env["wsgi.input"] = RequestBody(env["wsgi.input"], int(length))


class LiveRequest(falcon.Request):
    """A `falcon.Request` whose streams end where its body ends, chunked bodies included."""

    __slots__ = ()

    def _get_wrapped_wsgi_input(self) -> BoundedStream:
        # What `bounded_stream` is, made at its first use. Falcon's own ends where Content-Length
        # says, so it shows nothing of a body that has none.
        stream = self.env["wsgi.input"]
        if not isinstance(stream, RequestBody):
            if self.env.get("CONTENT_LENGTH") or not self.env.get("wsgi.input_terminated"):
                return super()._get_wrapped_wsgi_input()
            stream = RequestBody(stream, None)
        return cast(BoundedStream, stream)
