"""What a plugin registers, collected and checked before any of it is routed."""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from types import FrameType
from typing import Any

from falcon.routing import map_http_methods, set_default_responders
from falcon.routing.util import SuffixedMethodNotFoundError

from app.errors import LoadError
from app.records import Endpoint
from app.serving.activity import Name
from app.serving.callers import CallerCheck
from app.serving.handlers import HandlerError, Responder, describe, make_responder

MAX_TEMPLATE_LENGTH = 500


class MethodMap(dict[str, Any]):
    """What answers each method of a route, as Falcon keeps it; and the route."""

    __slots__ = ("route",)

    route: "Route"


@dataclass(frozen=True, slots=True)
class Route:
    """A URI template and the Falcon resource that answers it; `owner` is the plugin's name.

    `generation` tells the routes of one loaded generation from those of all others; `name` is what
    a thread shows while it answers the route (`serving/activity.py`).

    `methods` is Falcon's method map: what answers each method, those with 405 included. It is
    made once, for all the tables that the route will be in; out of `responders`, what answers the
    methods that are answered, if that is known, else by asking the resource.
    """

    owner: str
    template: str
    resource: object
    suffix: str | None = None
    endpoints: tuple[Endpoint, ...] = ()
    responders: InitVar[Mapping[str, Responder] | None] = None
    generation: str = ""
    methods: MethodMap = field(init=False, repr=False, compare=False)
    name: Name = field(init=False, repr=False, compare=False)

    def __post_init__(self, responders: Mapping[str, Responder] | None) -> None:
        """Make the method map."""
        known = responders or map_http_methods(self.resource, suffix=self.suffix)
        methods = MethodMap(known)
        set_default_responders(methods)
        methods.route = self
        object.__setattr__(self, "methods", methods)
        shown = f"{self.owner} {self.generation.rpartition('.')[2]} {self.template}"
        object.__setattr__(self, "name", Name(shown))

    def put_behind(self, check: CallerCheck) -> None:
        """Have a plugin's callers checked before each of its responders, before it is routed."""
        for method, responder in self.methods.items():
            self.methods[method] = check.before(responder)


class HandlerResource:
    """A Falcon resource whose responders were made from a plugin's handlers."""

    def set_responder(self, method: str, responder: Responder) -> None:
        """Answer one HTTP method."""
        setattr(self, f"on_{method.lower()}", responder)


class RouteCollector:
    """The `PluginServer` that a plugin sees: it collects routes, and every fault among them.

    Faults are kept until `finish`, so that all are named at once and none can be swallowed.
    """

    def __init__(
        self,
        plugin: str,
        place_of: Callable[[FrameType], tuple[str, int] | None],
        generation: str = "",
    ) -> None:
        """Collect for one plugin.

        Args:
            plugin: its name.
            place_of: tells the plugin's file and line of a frame.
            generation: the `Route.generation` of what is collected.
        """
        self._plugin = plugin
        self._generation = generation
        self._place_of = place_of
        self._handlers: dict[str, HandlerResource] = {}
        self._routes: dict[str, tuple[object, str | None]] = {}
        self._responders: dict[str, dict[str, Responder]] = {}
        self._endpoints: dict[str, list[Endpoint]] = {}
        self._faults: list[tuple[str, tuple[str, int] | None]] = []
        self._finished = False

    def get(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer GET on a template with a handler."""
        self._add_handler("GET", uri_template, handler)

    def post(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer POST on a template with a handler."""
        self._add_handler("POST", uri_template, handler)

    def put(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer PUT on a template with a handler."""
        self._add_handler("PUT", uri_template, handler)

    def patch(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer PATCH on a template with a handler."""
        self._add_handler("PATCH", uri_template, handler)

    def delete(self, uri_template: str, handler: Callable[..., Any]) -> None:
        """Answer DELETE on a template with a handler."""
        self._add_handler("DELETE", uri_template, handler)

    def add_route(self, uri_template: str, resource: object, suffix: str | None = None) -> None:
        """Add a Falcon resource, as `falcon.App.add_route` does."""
        if not self._accepts(uri_template):
            return
        if uri_template in self._routes:
            self._fault(f"the route {uri_template} is registered twice")
            return
        try:
            methods: dict[str, Any] = map_http_methods(resource, suffix=suffix)
        except SuffixedMethodNotFoundError as error:
            self._fault(f"the route {uri_template}: {error}")
            return
        asynchronous = [m for m, f in methods.items() if inspect.iscoroutinefunction(f)]
        if asynchronous:
            self._fault(
                f"the resource of {uri_template} answers {', '.join(asynchronous)} with coroutine "
                "functions, expected plain ones"
            )
            return
        if not methods:
            self._fault(
                f"the resource of {uri_template} is a {type(resource).__qualname__} without "
                "responders, expected on_get, on_post or the like"
            )
            return
        self._routes[uri_template] = (resource, suffix)
        self._responders[uri_template] = methods
        self._endpoints[uri_template] = [
            Endpoint(method, uri_template, describe(responder)[:255])
            for method, responder in methods.items()
        ]

    def finish(self) -> tuple[Route, ...]:
        """End the registration and return the routes in their order.

        Raises:
            LoadError: something that was registered cannot be routed; all faults are named.
        """
        self._finished = True
        if self._faults:
            place = next((place for _, place in self._faults if place), None)
            raise LoadError(
                self._plugin,
                "; ".join(message for message, _ in self._faults),
                phase="register_routes",
                file=place[0] if place else None,
                line=place[1] if place else None,
            )
        return tuple(
            Route(
                self._plugin,
                template,
                resource,
                suffix,
                tuple(self._endpoints[template]),
                self._responders[template],
                self._generation,
            )
            for template, (resource, suffix) in self._routes.items()
        )

    def _add_handler(self, method: str, uri_template: str, handler: Callable[..., Any]) -> None:
        if not self._accepts(uri_template):
            return
        resource = self._handlers.get(uri_template)
        if resource is None and uri_template in self._routes:
            self._fault(f"the route {uri_template} is registered twice")
            return
        if any(endpoint.method == method for endpoint in self._endpoints.get(uri_template, ())):
            self._fault(f"{method} {uri_template} is registered twice")
            return
        try:
            responder = make_responder(handler, uri_template)
        except HandlerError as error:
            self._fault(f"{method} {uri_template}: {error}")
            return
        if resource is None:
            resource = self._handlers[uri_template] = HandlerResource()
            self._routes[uri_template] = (resource, None)
        resource.set_responder(method, responder)
        self._responders.setdefault(uri_template, {})[method] = responder
        endpoint = Endpoint(method, uri_template, describe(handler)[:255])
        self._endpoints.setdefault(uri_template, []).append(endpoint)

    def _accepts(self, uri_template: object) -> bool:
        if self._finished:
            raise LoadError(
                self._plugin,
                f"the route {uri_template!r} came after register_routes had ended, "
                "expected all routes to be registered inside it",
                phase="register_routes",
            )
        if not isinstance(uri_template, str) or not uri_template.startswith("/"):
            self._fault(f"the template is {uri_template!r}, expected text that starts with '/'")
            return False
        if re.search(r"['\\\ud800-\udfff]", uri_template):
            # Falcon writes a template's text into Python source between quotes, as it stands.
            self._fault(
                f"the template {uri_template!r} holds a quote, a backslash or a lone surrogate, "
                "expected none"
            )
            return False
        if len(uri_template) > MAX_TEMPLATE_LENGTH or "\0" in uri_template:
            self._fault(
                f"the template {uri_template[:40]!r}… has {len(uri_template):,} characters, "
                f"expected {MAX_TEMPLATE_LENGTH} at most and no NUL"
            )
            return False
        return True

    def _fault(self, message: str) -> None:
        frame: FrameType | None = sys._getframe(1)
        place = None
        while frame is not None and place is None:
            place = self._place_of(frame)
            frame = frame.f_back
        self._faults.append((message, place))
