"""A WSGI application below a prefix of a plugin's, as one Falcon responder."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

import falcon

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_WITHOUT_BODY = (204, 304)
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


class Mounted:
    """Answers requests by a WSGI application (PEP 3333), which sees its prefix as `SCRIPT_NAME`."""

    def __init__(self, prefix: str, application: WSGI) -> None:
        self._prefix = prefix
        self._application = application

    def __call__(self, req: falcon.Request, resp: falcon.Response, **_: Any) -> None:
        """Answer a request."""
        env = dict(req.env)
        env["SCRIPT_NAME"] = env.get("SCRIPT_NAME", "") + self._prefix
        env["PATH_INFO"] = env["PATH_INFO"][len(self._prefix) :]
        env.pop(
            "wsgi.file_wrapper", None
        )  # what it makes is the server's, and Falcon's stream is not
        start = _Start()
        body = self._application(env, start)
        parts = _Parts(body, start)
        try:
            parts.begin()
            status, headers = start.given()
        except BaseException:
            parts.close()
            raise
        resp.status = status
        for name, value in headers:
            resp.append_header(name, value)
        if req.method == "HEAD" or resp.status_code in _WITHOUT_BODY:
            parts.close()  # Falcon sends no body then, and forgets it
        else:
            resp.stream = parts


class _Start:
    """The `start_response` that an application is given."""

    def __init__(self) -> None:
        self._given: tuple[str, list[tuple[str, str]]] | None = None
        self.written: list[bytes] = []

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        if self._given is not None and exc_info is None:
            raise AssertionError("start_response was called twice without an exception")
        self._given = status, list(headers)
        return self.written.append

    @property
    def is_given(self) -> bool:
        return self._given is not None

    def given(self) -> tuple[str, list[tuple[str, str]]]:
        if self._given is None:
            raise AssertionError("the mounted application did not call start_response")
        return self._given


class _Parts:
    """An application's body, begun as far as it takes until its headers are there."""

    def __init__(self, body: Iterable[bytes], start: _Start) -> None:
        self._body = body
        self._start = start
        self._parts: Iterator[bytes] = iter(())

    def begin(self) -> None:
        """Read until `start_response` was called: an application may do so with its first part."""
        parts, first = iter(self._body), []
        while not self._start.is_given:
            part = next(parts, None)
            if part is None:
                break
            first.append(part)
        self._parts = itertools.chain(self._start.written, first, parts)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._parts)

    def close(self) -> None:
        """Close the body, as PEP 3333 asks a server to."""
        close = getattr(self._body, "close", None)
        if close is not None:
            close()
