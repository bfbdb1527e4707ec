"""The Falcon application whose requests each run in one route table from start to last byte."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import falcon
from falcon.routing import CompiledRouter

from app.serving import answers, bodies
from app.serving.answers import OK, PLAIN_TYPES, BadAnswerError, UnanswerableError
from app.serving.bodies import LiveRequest
from app.serving.generations import RunningRequests
from app.serving.routes import RouteTable, SwappingRouter

# Looked up once: `super()` costs each request a twentieth of its time.
_answer = falcon.App.__call__
_get_body = falcon.App._get_body
_handle_exception = falcon.App._handle_exception


class LiveApp(falcon.App[LiveRequest, falcon.Response]):
    """A `falcon.App` that notes, for each request, the table that it began with."""

    def __init__(self) -> None:
        self.running = RunningRequests()
        self._threads = self.running.threads
        self.router = SwappingRouter()
        super().__init__(router=cast(CompiledRouter, self.router), request_type=LiveRequest)
        for options in (self.req_options, self.resp_options):
            options.media_handlers.update(bodies.media_handlers())

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
        if "CONTENT_LENGTH" in env or "HTTP_TRANSFER_ENCODING" in env:
            bodies.wrap_input(env)
        try:
            body = _answer(self, env, start_response)
            if type(body) is not list:
                wrapper = env.get("wsgi.file_wrapper")
                body = answers.make_stream(body, wrapper, self.running, slot.table)
        except Exception:
            raise  # out of `start_response`, which must not be called again
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the worker
            return self._answer_failure(error, env, start_response)
        finally:
            slot.table = outer
        return body

    # --- an answer is complete before it is started -----------------------------------------

    def _get_body(self, resp: falcon.Response, wsgi_file_wrapper: Any = None) -> Any:
        # Falcon's own, and the checks: with the usual answer this costs a request nothing.
        try:
            data = resp.render_body()
            if type(data) is not bytes:
                return self._get_other_body(resp, data, wsgi_file_wrapper)
            headers = resp._headers
            if (
                len(headers) != 1
                or headers.get("content-type") not in PLAIN_TYPES
                or resp.status is not OK
                or resp._extra_headers
                or resp._cookies
            ):
                answers.check_start(resp)
            return [data], len(data)
        except BadAnswerError as error:
            raise UnanswerableError from error
        except BaseException as error:
            raise UnanswerableError(resp) from error

    def _get_other_body(self, resp: falcon.Response, data: Any, wsgi_file_wrapper: Any) -> Any:
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
        found = self.router.find(req.path, req)
        req.uri_template = found[-1] if found else None
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
