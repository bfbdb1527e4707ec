"""Answers that a handler yields: sent part by part, as they come."""

import io
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import falcon

from app.loading.stream_places import NoPlaceError, Placed, take_place

log = logging.getLogger(__name__)

MEDIA_BYTES = "application/octet-stream"

_NOTHING: Any = object()


class EndableStream(ABC):
    """A streamed body that may end at any time, for what its client does then; as of events."""

    @abstractmethod
    def finish(self) -> None:
        """End it soon, as if it were complete; another thread than its reader's calls this."""


class StreamedAnswer(Placed):
    """What a handler yields, as the body of an answer; its first part is made with it.

    So what raises before there is a first part is answered as any other error.
    """

    def __init__(self, parts: Iterator[Any]) -> None:
        """Make it, and its first part.

        Raises:
            TypeError: that is neither bytes nor text.
            NoPlaceError: streams hold as many threads as they may.
        """
        self._parts = parts
        try:
            self._place = take_place()
        except NoPlaceError:
            _close(parts)
            raise
        try:
            first = next(parts, _NOTHING)
            self.is_text = isinstance(first, str)
            """Whether the first part is text."""
            self._first = None if first is _NOTHING else _to_bytes(first)
        except TypeError:
            self.close()
            raise
        except BaseException:
            self._place.release()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        self._place.check_end()
        return _to_bytes(next(self._parts))

    def close(self) -> None:
        """Close what yields: at its end, or once the client has gone."""
        try:
            _close(self._parts)
        finally:
            self._place.release()


def is_streamed(answer: object) -> bool:
    """Tell whether an answer is sent part by part: a generator, another iterator, a file."""
    # Not by `hasattr`: the class may look for what it does not have, as pydantic's models do.
    return issubclass(type(answer), Iterator)


def stream(resp: falcon.Response, answer: Any) -> str:
    """Answer with what yields bytes or text, or with a file.

    Returns:
        The content type where the handler says none: `application/octet-stream` of bytes,
        `text/plain` of text.

    Raises:
        TypeError: its first part is neither.
        NoPlaceError: streams hold as many threads as they may.
    """
    if isinstance(answer, io.RawIOBase | io.BufferedIOBase):
        resp.stream = answer  # read in blocks, or sent by the system
        return MEDIA_BYTES
    resp.stream = made = StreamedAnswer(answer)
    return falcon.MEDIA_TEXT if made.is_text else MEDIA_BYTES


def drop_stream(resp: falcon.Response) -> None:
    """Close the streamed body of a response, which nobody will read; what it raises is logged."""
    body, resp.stream = resp.stream, None
    try:
        _close(body)
    except BaseException:
        # SystemExit included: it would end the worker.
        log.exception("a streamed body raised in its close()")


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


def _to_bytes(part: object) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, bytearray | memoryview):
        return bytes(part)
    raise TypeError(
        f"a handler yielded a {type(part).__qualname__}, expected bytes or text; a list is sent as "
        "JSON"
    )
