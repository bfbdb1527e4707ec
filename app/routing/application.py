"""The Falcon application whose requests each run in one route table from start to last byte."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import falcon
import falcon.responders
from falcon.routing import CompiledRouter

from app.loading.routes import Route
from app.routing import answers, bodies
from app.routing.answers import JSON_HEADERS, OK, BadAnswerError, UnanswerableError
from app.routing.bodies import LiveRequest
from app.routing.grace_periods import RunningRequests
from app.routing.table import RouteTable

# Looked up once: `super()` costs each request a twentieth of its time.
_answer = falcon.App.__call__
_get_body = falcon.App._get_body
_get_responder = falcon.App._get_responder
_handle_exception = falcon.App._handle_exception
_bad_request = falcon.responders.bad_request


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


class LiveApp(falcon.App[LiveRequest, falcon.Response]):
    """A `falcon.App` that notes, for each request, the table that it began with and its route."""

    def __init__(self) -> None:
        self.running = RunningRequests()
        self._threads = self.running.threads
        self.on_failure: Callable[[Route, str], None] = lambda _route, _what: None
        """Is told of each request that a plugin has failed to answer, and what it did."""
        self.table = RouteTable.empty()
        """The current route table."""
        super().__init__(router=cast(CompiledRouter, NoRouter()), request_type=LiveRequest)
        for options in (self.req_options, self.resp_options):
            options.media_handlers.update(bodies.media_handlers())

    def swap(self, table: RouteTable) -> None:
        """Make a table current: one assignment."""
        self.table = table

    def _get_responder(self, req: LiveRequest) -> Any:
        """Find a request's responder in the current table, and note its route.

        Returns:
            Falcon's four: responder, fields, resource, template.
        """
        path = req.path
        table = self.table
        fields: dict[str, Any] = {}
        route = table.plain_paths.get(path)
        if route is None:
            router = None
            if "/" in path:  # it has none as of `OPTIONS *`
                router = table.plain_routers.get(path.split("/", 2)[1])
            match = None if router is None else router.find(path)
            if match is None:
                match = table.search(path)
                if match is None:
                    return _get_responder(self, req)  # Falcon's own 404
            route, fields = match[1].route, match[2]
        slot = self._threads.slot
        slot.at = route
        slot.cell[0] = route.name.number or self.running.number(route.name)
        responder = route.methods.get(req.method, _bad_request)
        return responder, fields, route.resource, route.template

    def answer_again(self, req: LiveRequest, resp: falcon.Response) -> None:
        """Answer a request in the table that is current now, for one that waited for it.

        It leaves the table that it began with: whoever calls this has done nothing of a plugin's.
        """
        self._threads.slot.at = self.table  # first, as in `__call__`
        responder, fields, _, req.uri_template = self._get_responder(req)
        responder(req, resp, **fields)

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
        if "CONTENT_LENGTH" in env or "HTTP_TRANSFER_ENCODING" in env:
            bodies.wrap_input(env)
        try:
            body = _answer(self, env, start_response)
            if type(body) is list:
                slot.cell[0] = 0
            else:  # it shows what it does until it is closed
                body = answers.make_stream(body, env.get("wsgi.file_wrapper"), self.running, slot)
        except Exception:
            slot.cell[0] = 0
            raise  # out of `start_response`, which must not be called again
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the worker
            slot.cell[0] = 0
            return self._answer_failure(error, env, start_response)
        finally:
            slot.at = None
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

    # --- an answer is complete before it is started -----------------------------------------

    def _get_body(self, resp: falcon.Response, wsgi_file_wrapper: Any = None) -> Any:
        # The usual answer is told at a glance: what its body is needs no call of Falcon's, and
        # what is checked of others is right by itself.
        data = resp._data
        if (
            type(data) is bytes
            and resp.text is None
            and resp._headers == JSON_HEADERS
            and resp.status is OK
            and resp._cookies is None
            and resp._extra_headers is None
        ):
            return [data], len(data)
        try:
            return self._get_other_body(resp, wsgi_file_wrapper)
        except BadAnswerError as error:
            raise UnanswerableError from error
        except BaseException as error:
            raise UnanswerableError(resp) from error

    def _get_other_body(self, resp: falcon.Response, wsgi_file_wrapper: Any) -> Any:
        data = resp.render_body()
        answers.check_start(resp)
        if data is not None:
            data = answers.check_data(resp, data)
            return [data], len(data)
        body, length = _get_body(self, resp, wsgi_file_wrapper)
        if length is None:
            answers.check_stream(resp, body)
        return body, length

    def _handle_exception(
        self, req: LiveRequest, resp: falcon.Response, ex: Exception, params: dict[str, Any]
    ) -> bool:
        try:
            return _handle_exception(self, req, resp, ex, params)
        except BaseException as error:
            raise UnanswerableError from error

    def _answer_failure(
        self, failed: BaseException, env: dict[str, Any], start_response: Callable[..., Any]
    ) -> list[bytes]:
        """Answer a request whose own answer failed before it was started."""
        req = LiveRequest(env, options=self.req_options)
        at = self.running.slot().at
        req.uri_template = at.template if isinstance(at, Route) else None
        resp = failed.resp if isinstance(failed, UnanswerableError) else None
        try:
            return self._answer_error(req, resp, answers.cause_of(failed), start_response)
        except UnanswerableError as again:
            # The error that a plugin raised cannot be sent either: now one of ours.
            return self._answer_error(req, None, answers.cause_of(again), start_response)

    def _answer_error(
        self,
        req: LiveRequest,
        resp: falcon.Response | None,
        error: Exception,
        start_response: Callable[..., Any],
    ) -> list[bytes]:
        if resp is None:
            resp = self._response_type(options=self.resp_options)
        resp.stream = None
        self._handle_exception(req, resp, error, {})
        body, length = self._get_body(resp)
        resp.content_length = length
        start_response(falcon.code_to_http_status(resp.status), resp._wsgi_headers())
        return [] if req.method == "HEAD" else body
