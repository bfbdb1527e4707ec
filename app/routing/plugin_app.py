"""What a plugin has of its own as a `falcon.App` has it: middleware, error handlers, options."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import falcon
import falcon.responders

from app.loading.own_app import FallBack, OwnApp
from app.loading.routes import Route, head_of
from app.routing.complete_app import CompleteApp
from app.routing.table import RouteTable

if TYPE_CHECKING:
    from app.routing.application import LiveApp

_get_responder = falcon.App._get_responder
_bad_request = falcon.responders.bad_request


def answer_by_own(live: "LiveApp", own: OwnApp | None, routes: tuple[Route, ...]) -> None:
    """Have routes answered by an application of their plugin's own, if it set one up.

    Call this before they are in a table; the arguments are those of `PluginApp`.
    """
    if own is not None and routes:
        app = PluginApp(live, own, routes)
        for route in routes:
            route.answer_by(app)


class PluginApp(CompleteApp):
    """Answers the requests of one generation whose plugin has an application of its own.

    What the plugin does not set is as everywhere in the server.
    """

    def __init__(self, live: "LiveApp", own: OwnApp, routes: tuple[Route, ...]) -> None:
        """Make it.

        Args:
            live: the application of the server, for what the plugin does not set.
            own: what the plugin sets.
            routes: its routes, one at least.
        """
        super().__init__(live.running)
        self._middleware = own._middleware
        self._sink_and_static_routes = own._sink_and_static_routes
        standard = {falcon.HTTPError, falcon.HTTPStatus}  # of this application: they serialize
        theirs = {k: v for k, v in live._error_handlers.items() if k not in standard}
        self._error_handlers |= theirs | own.error_handlers
        self._serialize_error = own.error_serializer or live._serialize_error
        self.has_own_errors = bool(own.error_serializer or own.error_handlers)
        """Whether the plugin says how some of its errors look."""
        self.req_options, self.resp_options = own.req_options, own.resp_options
        self._routes = routes
        first = routes[0]
        self.nowhere = Route(first.owner, "(no route)", None, generation=first.generation)
        """Stands for the route of what is below the plugin's first segments, and has none."""
        self.nowhere.answer_by(self)

    def _get_responder(self, req: Any) -> Any:
        """Return a request's responder, and note its route, as `LiveApp` does.

        The routes are this generation's, whatever the current table holds: its middleware has
        begun with the request, and may have changed its path.
        """
        slot = self._threads.slot
        route, fields = slot.route, slot.fields or {}
        if req.path is not slot.path:  # decoded, or changed
            match = self._table.search(req.path)
            route, fields = (self.nowhere, {}) if match is None else (match[1].route, match[2])
        if route is self.nowhere or type(route.resource) is FallBack:
            slot.at = route
            # A sink, a static route, or Falcon's own 404.
            found: Any = _get_responder(self, req)
            if route.around is not None:
                found = (route.around(found[0]), *found[1:])
            return found if req.method != "HEAD" else (head_of(found[0]), *found[1:])
        slot.at = route
        slot.cell[0] = route.name.number or self.running.number(route.name)
        responder = route.methods.get(req.method, _bad_request)
        return responder, fields, route.resource, route.template

    @cached_property
    def _table(self) -> RouteTable:
        builder = RouteTable.empty().builder()
        builder.add(self.nowhere.owner, self._routes)
        return builder.build()
