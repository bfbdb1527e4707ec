"""The Falcon application whose requests each run in one route table from start to last byte."""

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import falcon
import falcon.responders
from falcon.routing import CompiledRouter

from app.serving.generations import RunningRequests, Slot
from app.serving.registration import Route
from app.serving.routes import SERVER, RouteTable

log = logging.getLogger(__name__)

CRASH_BODY = (
    b'{"type":"about:blank","title":"Internal Server Error","status":500,'
    b'"detail":"The plugin tried to end the server; the log says more under the error id.",'
    b'"error_id":"%s"}'
)


# Looked up once: `super()` costs each request a twentieth of its time.
_answer = falcon.App.__call__
_get_body = falcon.App._get_body
_get_responder = falcon.App._get_responder


class NoRouter:
    """Stands for the router of a `falcon.App`, whose routes are in the current route table."""

    def find(self, uri: str, req: object = None) -> None:
        """Find nothing: what Falcon asks is in no table."""

    def add_route(self, uri_template: str, resource: object, **_: Any) -> None:
        """Refuse: routes are added by building a table."""
        raise TypeError(
            f"{uri_template} cannot be added to {type(resource).__qualname__}: "
            "routes come from plugins"
        )


class LiveApp(falcon.App[falcon.Request, falcon.Response]):
    """A `falcon.App` that notes, for each request, the table that it began with and its route."""

    def __init__(self) -> None:
        self.running = RunningRequests()
        self._threads = self.running.threads
        self.table = RouteTable.empty()
        """The current route table."""
        super().__init__(router=cast(CompiledRouter, NoRouter()))

    def swap(self, table: RouteTable) -> None:
        """Make a table current: one assignment."""
        self.table = table

    def _get_responder(self, req: falcon.Request) -> Any:
        """Find a request's responder in the current table, and note its route.

        Returns:
            Falcon's four: responder, fields, resource, template.
        """
        path = req.path
        table = self.table
        paths = table.paths
        fields: dict[str, Any] = {}
        route = None if paths is None else paths.get(path)
        if route is None:
            finder = None
            if paths is not None and "/" in path:  # it has none as of `OPTIONS *`
                finder = table.routers.get(path.split("/", 2)[1])
            found = None if finder is None else finder.find(path)
            if found is None:
                found = table.search(path)
                if found is None:
                    return _get_responder(self, req)  # Falcon's own 404
            route, fields = found[1].route, found[2]
        slot = self._threads.slot
        slot.at = route
        slot.cell[0] = route.name.number or self.running.number(route.name)
        responder = route.methods.get(req.method, falcon.responders.bad_request)
        return responder, fields, route.resource, route.template

    def __call__(self, env: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a WSGI request."""
        try:
            slot = self._threads.slot
        except AttributeError:
            slot = self.running.slot()
        if slot.at is not None:
            return self._answer_nested(env, start_response)
        # Noted first, and read again by `_get_responder`: whatever that finds is in the noted table
        # or a later one, and what is retired from either waits for the noted one to be left.
        slot.at = self.table
        streamed = False
        try:
            body = _answer(self, env, start_response)
            if type(body) is not list:
                body = _Stream(body, self.running, slot)
                streamed = True
            elif body and type(body[0]) is not bytes:
                raise TypeError(f"the body is a {type(body[0]).__qualname__}, expected bytes")
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the worker
            return _crashed(error, slot.at, env, start_response)
        finally:
            slot.at = None
            if not streamed:
                slot.cell[0] = 0
        return body

    def _answer_nested(
        self, env: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Answer a request that a plugin makes within a request, in a slot of its own."""
        outer = self.running.nest()
        try:
            return self(env, start_response)
        finally:
            self._threads.slot = outer

    def _get_body(self, resp: falcon.Response, wsgi_file_wrapper: Any = None) -> Any:
        try:
            return _get_body(self, resp, wsgi_file_wrapper)
        except Exception as error:
            raise _UnrenderableError from error


class _UnrenderableError(BaseException):
    """An answer cannot be rendered; no Exception, because Falcon would answer without a body."""


class _Stream:
    """A streamed body that holds its generation until it is closed, and raises only Exception."""

    def __init__(self, body: Iterable[bytes], running: RunningRequests, slot: Slot) -> None:
        self._body = body
        self._running = running
        self._parts: Iterator[bytes] | None = None
        self._cell = slot.cell
        self._held = running.hold(slot.at)

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
            self._cell[0] = 0  # the thread that streams is, under gunicorn, the one that answered


def _crashed(
    error: BaseException,
    at: RouteTable | Route,
    env: dict[str, Any],
    start_response: Callable[..., Any],
) -> list[bytes]:
    error_id = uuid.uuid4().hex[:12]
    log.error(
        "%s: %s %s raised %s [error %s]",
        at.owner if isinstance(at, Route) else SERVER,
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
