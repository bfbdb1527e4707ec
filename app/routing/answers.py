"""Answers: each is checked before it is started, and a stream holds its generation."""

import functools
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import falcon
from falcon import status_codes

from app.loading.return_values import STATUS_LINES
from app.loading.routes import SERVER, Route
from app.loading.stream_places import Place, Placed, take_place
from app.loading.streamed_answers import EndableStream
from app.routing.grace_periods import RunningRequests, Slot

log = logging.getLogger(__name__)

T = TypeVar("T")

OK = falcon.Response().status
"""Falcon's default, to be compared by identity: its texts are equal, but not the same object."""

# A header or status that gunicorn refuses would be refused when some headers have been taken
# already, and a second start would then send those twice. RFC 9110, 5.5 and 5.6.2.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")
_STATUS = re.compile(r"[1-9][0-9]{2}(?: [ \t\x21-\x7e\x80-\xff]*)?")

_WITHOUT_BODY = frozenset((status_codes.HTTP_204, status_codes.HTTP_304))

JSON_HEADERS = {"content-type": falcon.MEDIA_JSON}
"""The headers of the usual answer: if they are equal, they need no check."""

_PLAIN_NAMES = frozenset(
    (
        *("access-control-allow-origin", "allow", "cache-control", "content-disposition"),
        *("content-encoding", "content-length", "content-range", "content-type", "etag"),
        *("expires", "last-modified", "location", "retry-after", "vary", "x-request-id"),
    )
)
"""Names of headers that need no check."""


class BadAnswerError(Exception):
    """A plugin's answer cannot be sent; the message says what was found and expected."""


class PluginExitError(Exception):
    """A plugin raised what would have ended the worker; the cause is what it raised."""


class UnanswerableError(BaseException):
    """An answer failed before it was started; the cause says why.

    No Exception, because Falcon would go on with an empty body. `resp` is the response whose
    headers still count, None where it cannot be used.
    """

    def __init__(self, resp: falcon.Response | None = None) -> None:
        super().__init__()
        self.resp = resp


class AnswerAgain(BaseException):
    """A request is to be answered in the table that is current now.

    No Exception, because Falcon would take it for the plugin's.
    """


def cause_of(failed: BaseException) -> Exception:
    """Return what made an answer fail: an Exception, so that an error handler can take it."""
    raised = failed.__cause__ if isinstance(failed, UnanswerableError) else failed
    if isinstance(raised, Exception):
        return raised
    cause = PluginExitError()
    cause.__cause__ = raised
    return cause


def check_start(resp: falcon.Response) -> None:
    """Refuse a status line or headers that cannot be sent.

    Raises:
        BadAnswerError: it names the header, and not its value, which may be a secret.
    """
    for name, value in resp._headers.items():
        plain = type(value) is str and value.isascii() and value.isprintable()
        if not plain or name not in _PLAIN_NAMES:
            _check_header(name, value)
    for name, value in resp._extra_headers or ():
        _check_header(name, value)
    if resp._cookies:
        for cookie in resp._cookies.values():
            _check_header("set-cookie", cookie.OutputString())
    status = resp.status
    if status is not OK and status not in STATUS_LINES:
        try:
            line = falcon.code_to_http_status(status)
        except ValueError:
            line = ""
        if line not in STATUS_LINES and not _STATUS.fullmatch(line):
            raise BadAnswerError(f"answered with the status {status!r}, expected one like '200 OK'")


def _check_header(name: Any, value: Any) -> None:
    if type(name) is not str or not _NAME.fullmatch(name):
        raise BadAnswerError(
            f"answered with the header name {name!r}, expected a token of RFC 9110"
        )
    if type(value) is not str:
        raise BadAnswerError(
            f"answered with a {type(value).__qualname__} as the header {name}, expected text"
        )
    if not _VALUE.fullmatch(value):
        raise BadAnswerError(
            f"answered with a header {name} that holds a line break, a control character or a "
            "character beyond Latin-1, expected none"
        )


def check_data(resp: falcon.Response, data: Any) -> bytes:
    """Refuse a body that is not bytes, unless the status has no body."""
    if isinstance(data, bytes):
        return data
    if falcon.code_to_http_status(resp.status) in _WITHOUT_BODY:
        return b""
    raise BadAnswerError(
        f"answered with a {type(data).__qualname__} as its body, expected bytes in resp.data (or "
        "text in resp.text)"
    )


def check_stream(resp: falcon.Response, body: Any) -> None:
    """Refuse a streamed body that could not even be started."""
    kind = type(body).__qualname__
    if isinstance(body, (str, bytes, bytearray, memoryview)):
        raise BadAnswerError(
            f"answered with a {kind} as resp.stream, expected a file or an iterable of bytes"
        )
    if isinstance(body, list):
        wrong = next((part for part in body if not isinstance(part, bytes)), None)
        if wrong is not None:
            raise BadAnswerError(
                f"answered with a {type(wrong).__qualname__} in resp.stream, expected bytes"
            )
    length = resp.get_header("content-length")
    if length is not None and not (length.isascii() and length.isdecimal()):
        raise BadAnswerError(f"answered with the content-length {length!r}, expected a number")


@dataclass(frozen=True, slots=True)
class WithPlace:
    """A streamed body on its way to `make_stream`, and the place that it holds."""

    body: Iterable[bytes]
    place: Place


def give_place(resp: falcon.Response, body: Any) -> Any:
    """Return a streamed body with its place among the threads, where it needs one.

    What is a file, or says how long it is, ends when it is sent.

    Raises:
        NoPlaceError: streams hold as many threads as they may.
    """
    if (
        isinstance(body, (Placed, list, tuple))
        or hasattr(resp.stream, "read")
        or resp.get_header("content-length") is not None
    ):
        return body
    return WithPlace(body, take_place(lasts=isinstance(body, EndableStream)))


# --- streams -------------------------------------------------------------------------------


BREAKS_OFF = "after its answer had begun, which breaks off"


def make_stream(
    body: Iterable[bytes] | WithPlace, env: Mapping[str, Any], running: RunningRequests, slot: Slot
) -> "Stream":
    """Wrap a streamed body, so that a server that can send files by itself still does.

    Args:
        body: what Falcon made of `resp.stream`.
        env: the request, in which a server has its `wsgi.file_wrapper`, if it has one.
        running: where the generation is held.
        slot: where the request's thread notes it.
    """
    wrapper = env.get("wsgi.file_wrapper")
    method = env["REQUEST_METHOD"]
    if isinstance(body, WithPlace):
        return Stream(body.body, method, running, slot, body.place)
    if isinstance(wrapper, type) and isinstance(body, wrapper):
        return _file_stream(wrapper)(body, method, running, slot)
    return Stream(body, method, running, slot)


class Stream:
    """A streamed body that holds its generation until it is closed, and raises only Exception."""

    def __init__(
        self,
        body: Iterable[bytes],
        method: str,
        running: RunningRequests,
        slot: Slot,
        place: Place | None = None,
    ) -> None:
        self._body = body
        self._method = method
        self._running = running
        self._place = place
        self._parts: Iterator[bytes] | None = None
        self._cell = slot.cell
        self._held = running.hold(slot.at, body if isinstance(body, EndableStream) else None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._body)  # here, so that `close` follows if it raises
            if self._place is not None and self._place.ends_at is not None:
                self._place.check_end()
            return next(self._parts)
        except StopIteration:
            raise
        except Exception as error:
            self._log(error, BREAKS_OFF)
            raise
        except BaseException as error:
            self._log(error, BREAKS_OFF)
            raise RuntimeError(f"a streamed body raised {type(error).__name__}") from error

    def _log(self, error: BaseException, when: str) -> None:
        """Say whose answer it is: the server that sends it knows no plugin and no route."""
        at = self._held.at
        owner, route = (at.owner, at.template) if isinstance(at, Route) else (SERVER, "")
        log.error(
            "%s: %s %s raised %s %s",
            owner,
            self._method,
            route,
            type(error).__name__,
            when,
            exc_info=error,
        )

    def close(self) -> None:
        """Close the body, as a WSGI server does after the last byte or a lost client."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as error:  # noqa: BLE001 - SystemExit too: it would end the worker
            self._log(error, "at the end of its stream")
        finally:
            if self._place is not None:
                self._place.release()
            self._running.release(self._held)
            self._cell[0] = 0  # the thread that streams is, under gunicorn, the one that answered


class _FileStream(Stream):
    """A stream of a file; `filelike` is where a server finds what `sendfile` takes."""

    def __init__(self, body: Any, method: str, running: RunningRequests, slot: Slot) -> None:
        super().__init__(body, method, running, slot)
        self.filelike = _File(body.filelike)
        self.blksize = getattr(body, "blksize", 8192)


@functools.cache
def _file_stream(wrapper: type) -> type[Stream]:
    """Return the class of streams that are the server's own file wrappers too."""
    return type("FileStream", (_FileStream, wrapper), {})


class _File:
    """A plugin's file in the server's hands: it raises nothing but Exception."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        value = _only_exceptions(getattr, self._file, name)
        return functools.partial(_only_exceptions, value) if callable(value) else value


def _only_exceptions(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    try:
        return function(*args, **kwargs)
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"a streamed file raised {type(error).__name__}") from error
