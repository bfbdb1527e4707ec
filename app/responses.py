"""What a handler may answer with beside plain values: an answer, an event, a problem."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, TypeVar

import falcon

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A handler's answer with its status and headers: `Answer(order, status=201)`.

    `value` is what the handler would return alone; None is an answer without a body. `status` is a
    number from 200 to 599, a line as `201 Created`, or None: 200, and 204 without a value. Headers
    are a mapping, or pairs of name and value where a name comes more than once, as `Set-Cookie`
    may; with a `Content-Type` among them the value, text or bytes, is sent as that.
    """

    value: T
    status: int | str | None = None
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event: `yield Event({"seat": 7}, event="taken", id=12)`.

    `data` is text as it is, or what becomes JSON; None for an event without data, which tells the
    client its `id` and `retry` alone. `event` is its type, `message` for the client where it is
    empty. `id` is what the client sends as `Last-Event-ID` when it comes again. `retry` is after
    how many milliseconds it does.
    """

    data: Any = None
    event: str = ""
    id: str | int | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        """Refuse what would become something else: ValueError."""
        for name, text in (("event", self.event), ("id", str(self.id))):
            if not {"\n", "\r", "\0"}.isdisjoint(text):
                raise ValueError(f"the {name} of an event is {text!r}, expected one line of text")
        if self.retry is not None and self.retry < 0:
            raise ValueError(f"the retry of an event is {self.retry}, expected milliseconds")


class Problem(falcon.HTTPError):
    """An error that is answered as an RFC 9457 problem: `raise Problem(409, "It is sold.")`.

    It is a `falcon.HTTPError`, so that error handlers and serializers take it for one.
    """

    def __init__(
        self,
        status: int | str,
        detail: str = "",
        *,
        title: str = "",
        type: str = "",  # noqa: A002 - RFC 9457 calls it so
        members: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Make it.

        Args:
            status: a number, or a line as `409 Conflict`.
            detail: what happened this time, in a sentence.
            title: what kind of problem it is; empty for the status's own words.
            type: a URI that says what kind of problem it is; empty for `about:blank`.
            members: further members of the problem, as JSON has them.
            headers: headers of the answer.
        """
        line = falcon.code_to_http_status(status)
        super().__init__(
            line,
            title=title or _words_of(line),
            description=detail or None,
            headers=dict(headers) if headers else None,
        )
        self.type = type
        self.members = dict(members or {})

    def to_dict(self, obj_type: Any = dict) -> Any:
        """Return what is written of it: its title, its detail, its type and its members."""
        found: Any = super().to_dict(obj_type)
        if self.type:
            found["type"] = self.type
        found.update(self.members)
        return found


def _words_of(line: str) -> str:
    code, _, words = line.partition(" ")
    try:
        return HTTPStatus(int(code)).phrase
    except ValueError:  # one that is not registered
        return words or line
