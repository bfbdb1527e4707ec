"""The Falcon application whose requests each run in one route table from start to last byte."""

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import falcon
from falcon.routing import CompiledRouter

from app.serving.generations import RunningRequests
from app.serving.routes import RouteTable, SwappingRouter

log = logging.getLogger(__name__)

CRASH_BODY = (
    b'{"type":"about:blank","title":"Internal Server Error","status":500,'
    b'"detail":"The plugin tried to end the server; the log says more under the error id.",'
    b'"error_id":"%s"}'
)


# Looked up once: `super()` costs each request a twentieth of its time.
_answer = falcon.App.__call__
_get_body = falcon.App._get_body


class LiveApp(falcon.App[falcon.Request, falcon.Response]):
    """A `falcon.App` that notes, for each request, the table that it began with."""

    def __init__(self) -> None:
        self.running = RunningRequests()
        self._threads = self.running.threads
        self.router = SwappingRouter()
        super().__init__(router=cast(CompiledRouter, self.router))

    @property
    def table(self) -> RouteTable:
        """The current route table."""
        return self.router.table

    def swap(self, table: RouteTable) -> None:
        """Make a table current: one assignment."""
        self.router.table = table

    def __call__(self, env: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a WSGI request."""
        try:
            slot = self._threads.slot
        except AttributeError:
            slot = self.running.slot()
        # Noted first, and read again by the router: whatever table that finds, it is the noted one
        # or a later one, and what is retired from either waits for the noted one to be left. A
        # request within a request waits for the outer one's.
        outer = slot.table
        if outer is None:
            slot.table = self.router.table
        try:
            body = _answer(self, env, start_response)
            if type(body) is not list:
                body = _Stream(body, self.running, slot.table)
            elif body and type(body[0]) is not bytes:
                raise TypeError(f"the body is a {type(body[0]).__qualname__}, expected bytes")
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the worker
            return _crashed(error, self.router.table, env, start_response)
        finally:
            slot.table = outer
        return body

    def _get_body(self, resp: falcon.Response, wsgi_file_wrapper: Any = None) -> Any:
        try:
            return _get_body(self, resp, wsgi_file_wrapper)
        except Exception as error:
            raise _UnrenderableError from error


class _UnrenderableError(BaseException):
    """An answer cannot be rendered; no Exception, because Falcon would answer without a body."""


class _Stream:
    """A streamed body that holds its table until it is closed, and raises nothing but Exception."""

    def __init__(self, body: Iterable[bytes], running: RunningRequests, table: RouteTable) -> None:
        self._body = body
        self._running = running
        self._parts: Iterator[bytes] | None = None
        self._held = running.hold(table)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._parts is None:
                self._parts = iter(self._body)  # here, so that `close` follows if it raises
            return next(self._parts)
        except Exception:
            raise
        except BaseException as error:
            raise RuntimeError(f"a streamed body raised {type(error).__name__}") from error

    def close(self) -> None:
        """Close the body, as a WSGI server does after the last byte or a lost client."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException:
            # SystemExit included: it would end the worker.
            log.exception("a streamed body raised in its close()")
        finally:
            self._running.release(self._held)


def _crashed(
    error: BaseException,
    table: RouteTable,
    env: dict[str, Any],
    start_response: Callable[..., Any],
) -> list[bytes]:
    # As Falcon decodes it: WSGI gives the path's bytes as Latin-1.
    path = env.get("PATH_INFO", "").encode("latin1", "replace").decode("utf-8", "replace")
    found = table.search(path)
    template = found[-1] if found else None
    error_id = uuid.uuid4().hex[:12]
    log.error(
        "%s: %s %s raised %s [error %s]",
        table.owner_of(template),
        env.get("REQUEST_METHOD"),
        env.get("PATH_INFO"),
        type(error).__name__,
        error_id,
        exc_info=error,
    )
    body = CRASH_BODY % error_id.encode()
    headers = [
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
    ]
    exc_info = (type(error), error, error.__traceback__)
    start_response("500 Internal Server Error", headers, exc_info)
    return [body]
