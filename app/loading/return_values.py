"""What a handler returned becomes the response: a status, headers, a body."""

from collections.abc import Callable, Mapping
from typing import Any

import falcon

from app.loading.strict_json import to_json

STATUS_LINES = frozenset(
    line for name, line in vars(falcon.status_codes).items() if name.startswith("HTTP_")
)
"""The status lines that Falcon knows, as `200 OK`."""


def answerer(*, owns_response: bool) -> Callable[[falcon.Request, falcon.Response, Any], None]:
    """Return what makes the response of what a handler has returned.

    Args:
        owns_response: whether the handler takes the response, so that None leaves it as it is.
    """

    def answer_by(_req: falcon.Request, resp: falcon.Response, answer: Any) -> None:
        if type(answer) is tuple and has_status(answer):
            answer = take_status(resp, *answer)
            if answer is None:
                return
        if answer is not None:
            if owns_response and resp.content_type is not None:
                answer_as(resp, resp.content_type, answer)
            else:
                resp.content_type = falcon.MEDIA_JSON
                resp.data = to_json(answer)
        elif not owns_response:
            resp.status = falcon.HTTP_204

    return answer_by


def has_status(answer: tuple[Any, ...]) -> bool:
    """Tell whether a returned tuple is an answer with its status, and perhaps headers.

    The types decide and not the values, so that the meaning does not depend on the data: `items,
    7` is an answer with a (wrong) status, two numbers are an array.
    """
    if len(answer) not in (2, 3) or isinstance(answer[0], (int, float)):
        return False
    if len(answer) == 3 and not isinstance(answer[2], Mapping):
        return False
    status = answer[1]
    if isinstance(status, str):
        return status in STATUS_LINES
    return isinstance(status, int) and not isinstance(status, bool)


def take_status(
    resp: falcon.Response,
    answer: Any,
    status: int | str,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """Set the response's status and headers from a returned tuple, and return the answer in it.

    Raises:
        ValueError: the status is not between 200 and 599.
    """
    if isinstance(status, int) and not 200 <= status <= 599:
        raise ValueError(
            f"a handler answered with a tuple of something and {int(status)}: expected (answer, "
            "status) with a status from 200 to 599, or a list, which is sent as an array"
        )
    resp.status = status
    if headers:
        resp.set_headers(dict(headers))
    return answer


def answer_as(resp: falcon.Response, content_type: str, answer: Any) -> None:
    """Answer with the content type that the handler has set.

    Raises:
        TypeError: the answer is neither text nor bytes, and the content type is not JSON.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if isinstance(answer, bytes):
        resp.data = answer
    elif kind.endswith(("/json", "+json")):
        resp.data = to_json(answer)
    elif isinstance(answer, str):
        resp.text = answer
    else:
        raise TypeError(
            f"a handler set the content type {content_type!r} and answered with a "
            f"{type(answer).__qualname__}, expected text or bytes"
        )
