"""A Falcon application whose answers are complete before they are started."""

from collections.abc import Callable
from typing import Any, cast

import falcon
from falcon.routing import CompiledRouter

from app.loading.live_response import LiveResponse
from app.loading.routes import Route
from app.loading.stream_places import NoPlaceError
from app.loading.streamed_answers import drop_stream
from app.routing import answers, streams
from app.routing.answers import JSON_HEADERS, OK, BadAnswerError, UnanswerableError
from app.routing.bodies import LiveRequest
from app.routing.grace_periods import RunningRequests

# Looked up once: `super()` costs each request a twentieth of its time.
_get_body = falcon.App._get_body
_handle_exception = falcon.App._handle_exception


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


class CompleteApp(falcon.App[LiveRequest, LiveResponse]):
    """A `falcon.App` without routes that starts an answer once nothing of it can fail any more."""

    def __init__(self, running: RunningRequests) -> None:
        self.running = running
        self._threads = running.threads
        super().__init__(
            router=cast(CompiledRouter, NoRouter()),
            request_type=LiveRequest,
            response_type=LiveResponse,
        )

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
        except (BadAnswerError, NoPlaceError) as error:
            drop_stream(resp)
            raise UnanswerableError from error
        except BaseException as error:
            drop_stream(resp)
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
            body = streams.give_place(resp, body)
        return body, length

    def _handle_exception(
        self, req: LiveRequest, resp: Any, ex: Exception, params: dict[str, Any]
    ) -> bool:
        try:
            return _handle_exception(self, req, resp, ex, params)
        except BaseException as error:
            raise UnanswerableError from error

    def answer_failure(
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
