"""The Falcon application whose requests each run in one route table from start to last byte."""

from collections.abc import Callable, Iterable
from typing import Any

import falcon
import falcon.responders

from app.loading.media import install_media_handlers
from app.loading.routes import Route
from app.routing import bodies, streams
from app.routing.answers import AnswerAgain
from app.routing.complete_app import CompleteApp
from app.routing.grace_periods import RunningRequests, Slot
from app.routing.table import RouteTable

# Looked up once: `super()` costs each request a twentieth of its time.
_answer = falcon.App.__call__
_get_responder = falcon.App._get_responder
_bad_request = falcon.responders.bad_request


def _look_further(table: RouteTable, path: str, slot: Slot) -> Route | None:
    """Return the route of a path that is no usual one, or what stands for it."""
    # As Falcon reads it: WSGI has its bytes as Latin-1 (PEP 3333).
    text = path if path.isascii() else path.encode("iso-8859-1").decode("utf-8", "replace")
    match = table.search(text)
    if match is None:
        return table.nowhere(text)
    route: Route = match[1].route
    slot.fields = match[2]
    return route


class LiveApp(CompleteApp):
    """A `falcon.App` that notes, for each request, the table that it began with and its route.

    A plugin with an application of its own (`PluginApp`) has it answer instead, so that a request
    is one call of Falcon's either way. Where there are such, the route is looked for before Falcon
    begins, and Falcon is given what was found.
    """

    def __init__(self) -> None:
        super().__init__(RunningRequests())
        self.on_failure: Callable[[Route, str], None] = lambda _route, _what: None
        """Is told of each request that a plugin has failed to answer, and what it did."""
        self.table = RouteTable.empty()
        """The current route table."""
        install_media_handlers(self)

    def swap(self, table: RouteTable) -> None:
        """Make a table current: one assignment."""
        self.table = table

    def _get_responder(self, req: Any) -> Any:
        """Find a request's responder in the current table, unless it was found; note its route.

        Returns:
            Falcon's four: responder, fields, resource, template.
        """
        path = req.path
        slot = self._threads.slot
        fields: dict[str, Any] = {}
        route = slot.route
        if route is not None and path is slot.path:
            fields = slot.fields or fields
        else:
            table = self.table
            route = table.plain_paths.get(path)
            if route is None:
                segments = path.lstrip("/").split("/")  # as Falcon's router
                router = table.plain_routers.get(segments[0])
                if router is not None:  # a call less than `router.find`, and no four values
                    route = router.finder(
                        segments, router.routes, router.patterns, router.converters, fields
                    )
                if route is None:
                    match = table.search(path)
                    if match is None:
                        return _get_responder(self, req)  # Falcon's own 404
                    route, fields = match[1].route, match[2]
            if route.app is not None and slot.at is not table:
                raise AnswerAgain  # its middleware came with this table, after the request began
        slot.at = route
        slot.cell[0] = route.name.number or self.running.number(route.name)
        responder = route.methods.get(req.method, _bad_request)
        return responder, fields, route.resource, route.template

    def _app_for(self, path: str, slot: Slot) -> CompleteApp:
        """Return whose application answers a path, and leave in the slot what was found for it."""
        table = self.table  # read again: see `__call__`
        slot.path = path
        try:
            route = table.plain_paths.get(path)
            if route is None:
                segments = path.lstrip("/").split("/")
                fields: dict[str, Any] = {}
                router = table.plain_routers.get(segments[0]) if path.isascii() else None
                if router is not None:
                    route = router.finder(
                        segments, router.routes, router.patterns, router.converters, fields
                    )
                if route is None:
                    route = _look_further(table, path, slot)
                else:
                    slot.fields = fields
        except BaseException:  # noqa: BLE001 - of a converter; Falcon asks it again, and can say it
            return self
        slot.route = route
        if route is None or route.app is None:
            return self
        slot.at = route  # whatever comes before its responder is its plugin's too
        slot.cell[0] = route.name.number or self.running.number(route.name)
        app: CompleteApp = route.app
        return app

    def __call__(self, env: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a WSGI request."""
        try:
            slot = self._threads.slot
        except AttributeError:
            slot = self.running.slot()
        if slot.at is not None:
            return self._answer_nested(env, start_response)
        # Noted first, and read again: whatever is found is in the noted table or a later one, and
        # what is retired from either waits for the noted one to be left.
        slot.at = table = self.table
        app = self._app_for(env["PATH_INFO"] or "/", slot) if table.apps else self
        if "CONTENT_LENGTH" in env or "HTTP_TRANSFER_ENCODING" in env:
            bodies.wrap_input(env)
        try:
            body = _answer(app, env, start_response)
            if type(body) is list:
                slot.cell[0] = 0
            else:  # it shows what it does until it is closed
                body = streams.make_stream(body, env, self.running, slot)
        except AnswerAgain:  # it leaves the table that it began with
            slot.cell[0] = 0
            slot.at = slot.route = slot.fields = None
            return self(env, start_response)
        except Exception:
            slot.cell[0] = 0
            raise  # out of `start_response`, which must not be called again
        except BaseException as error:  # noqa: BLE001 - SystemExit would end the worker
            slot.cell[0] = 0
            return app.answer_failure(error, env, start_response)
        finally:
            slot.at = None
            if slot.route is not None:
                slot.route = slot.fields = None
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
