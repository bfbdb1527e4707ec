"""Answers: each is checked before it is started."""

import re
from typing import Any

import falcon
from falcon import status_codes

from app.loading.return_values import STATUS_LINES

OK = falcon.Response().status
"""Falcon's default, to be compared by identity: its texts are equal, but not the same object."""

# A header or status that gunicorn refuses would be refused when some headers have been taken
# already, and a second start would then send those twice. RFC 9110, 5.5 and 5.6.2.
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")
_STATUS = re.compile(r"[2-9][0-9]{2}(?: [ \t\x21-\x7e\x80-\xff]*)?")

# After one of 1xx the client waits for another answer, which never comes. RFC 9110, 15.2.
_FINAL_LINES = frozenset(line for line in STATUS_LINES if not line.startswith("1"))

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
    if status is not OK and status not in _FINAL_LINES:
        try:
            line = falcon.code_to_http_status(status)
        except ValueError:
            line = ""
        if not _STATUS.fullmatch(line):
            raise BadAnswerError(
                f"answered with the status {status!r}, expected one like '200 OK', from 200 on"
            )


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
