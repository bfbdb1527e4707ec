"""What a handler returned becomes the response: a status, headers, a body."""

import inspect
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import falcon

from app.loading.annotations import show
from app.loading.live_response import LiveResponse
from app.loading.media import is_json
from app.loading.representations import represent
from app.loading.streamed_answers import MEDIA_BYTES, is_streamed, stream
from app.loading.strict_json import to_json
from app.responses import Answer

Answerer = Callable[..., None]
"""Makes the response of a request, a response, what a handler has returned, and the media type
that was chosen for it, if one was."""

STATUS_LINES = frozenset(
    line for name, line in vars(falcon.status_codes).items() if name.startswith("HTTP_")
)
"""The status lines that Falcon knows, as `200 OK`."""

WITHOUT_CONTENT = frozenset(("204", "205", "304"))
"""The statuses of answers without content (RFC 9110, 15.3.5, 15.3.6 and 15.4.5)."""

_PLAIN = frozenset((dict, list, str, int, float, bool))
"""What is JSON at a glance."""


def answerer(*, owns_response: bool, empty: str = falcon.HTTP_204) -> Answerer:
    """Return what makes the response of what a handler has returned.

    Args:
        owns_response: whether the handler takes the response, so that None leaves it as it is.
        empty: the status of None.
    """

    def answer_by(
        _req: falcon.Request, resp: LiveResponse, answer: Any, media_type: str | None = None
    ) -> None:
        content_type = resp.content_type if owns_response else None
        kind = type(answer)
        status: int | str | None = None
        headers: list[tuple[str, str]] = []
        if kind is Answer or (kind is tuple and has_status(answer)):
            answer, status, headers = _parts_of(answer)
            kind = type(answer)
            content_type = dict(headers).get("content-type", content_type)
        if answer is None:
            if status is None and not owns_response:
                status = empty
        elif kind not in _PLAIN and is_streamed(answer):
            usual = stream(resp, answer)  # up to its first part, which may set what is owned
            if content_type is None and not (owns_response and resp.content_type):
                resp.content_type = usual
        elif content_type is not None:
            answer_as(resp, content_type, answer)
        elif media_type is not None:
            represent(resp, media_type, answer)
        elif kind is bytes:
            resp.content_type = MEDIA_BYTES
            resp.data = answer
        else:
            resp.content_type = falcon.MEDIA_JSON
            resp.data = resp.answered = to_json(answer)
        # Last, so that what could not be written leaves nothing of its own on the error.
        if status is not None:
            resp.status = status
        if headers:
            _set_headers(resp, headers)

    return answer_by


def status_fault(status: int | None, returns: Any) -> str | None:
    """Return what is wrong with a handler's status and its return type, None if nothing is.

    Args:
        status: that of its answers, None if it says none.
        returns: the annotation of what it returns, `inspect.Parameter.empty` if there is none.
    """
    is_nothing = any(returns is each for each in (None, type(None), inspect.Parameter.empty))
    if str(status) in WITHOUT_CONTENT and not is_nothing:
        return f"it returns {show(returns)}, expected None: an answer of {status} has no content"
    return None


def has_status(answer: tuple[Any, ...]) -> bool:
    """Tell whether a returned tuple is an answer with its status, and perhaps headers.

    The types decide and not the values, so that the meaning does not depend on the data: `items,
    7` is an answer with a (wrong) status, two numbers are an array. An `HTTPStatus` may also stand
    first, which no data does.
    """
    if len(answer) not in (2, 3) or (len(answer) == 3 and not isinstance(answer[2], Mapping)):
        return False
    first, second = answer[:2]
    if type(first) is HTTPStatus:
        return True
    if isinstance(first, (int, float)):
        return False
    if isinstance(second, str):
        return second in STATUS_LINES
    return isinstance(second, int) and not isinstance(second, bool)


def _parts_of(
    answer: Answer[Any] | tuple[Any, ...],
) -> tuple[Any, int | str | None, list[tuple[str, str]]]:
    """Return the value, the status and the headers of an answer that has them.

    Raises:
        ValueError: the status is not between 200 and 599, or no status line.
        TypeError: the headers are none.
    """
    if isinstance(answer, Answer):
        value, status, headers = answer.value, answer.status, answer.headers
        if isinstance(status, str) and status not in STATUS_LINES:
            raise ValueError(
                f"a handler answered with an Answer of the status {status!r}, expected a number or "
                "a line as '201 Created'"
            )
    else:
        value, status, *rest = answer
        if type(value) is HTTPStatus:
            value, status = status, value
        headers = rest[0] if rest else None
    if isinstance(status, int) and not 200 <= status <= 599:
        shown = type(answer).__name__
        raise ValueError(
            f"a handler answered with {'an' if shown == 'Answer' else 'a'} {shown} of something "
            f"and {int(status)}: expected (answer, status) with a status from 200 to 599, or a "
            "list, which is sent as an array"
        )
    status = int(status) if isinstance(status, int) else status
    if value is not None and str(status)[:3] in WITHOUT_CONTENT:
        raise ValueError(
            f"a handler answered with something and {status}, which has no content: expected None, "
            "or another status"
        )
    return value, status, _pairs_of(headers) if headers else []


def _pairs_of(headers: Any) -> list[tuple[str, str]]:
    """Return headers as pairs, their names in lower case.

    Raises:
        TypeError: they are neither a mapping nor pairs.
    """
    items = headers.items() if isinstance(headers, Mapping) else headers
    try:
        return [(name.lower(), str(value)) for name, value in items]
    except (TypeError, ValueError, AttributeError):
        raise TypeError(
            f"a handler answered with the headers of a {type(headers).__qualname__} that holds "
            "something else, expected a mapping of names to values, or a list of pairs of them"
        ) from None


def _set_headers(resp: falcon.Response, headers: list[tuple[str, str]]) -> None:
    """Set headers; of those that are given more than once, as cookies may be, all count."""
    seen = {"set-cookie", "vary"}  # whose own may be there already
    for name, value in headers:
        if name in seen:
            resp.append_header(name, value)
        else:
            resp.set_header(name, value)
            seen.add(name)


def answer_as(resp: LiveResponse, content_type: str, answer: Any) -> None:
    """Answer with the content type that the handler has set: text and bytes are of it already.

    Raises:
        TypeError: the answer is neither text nor bytes, and the content type is not JSON.
    """
    if isinstance(answer, bytes):
        resp.data = answer
    elif isinstance(answer, str):
        resp.text = answer
    elif is_json(content_type):
        resp.data = to_json(answer)
        if content_type == falcon.MEDIA_JSON:  # else Falcon could not write what is made of it
            resp.answered = resp.data
    else:
        raise TypeError(
            f"a handler set the content type {content_type!r} and answered with a "
            f"{type(answer).__qualname__}, expected text or bytes"
        )
