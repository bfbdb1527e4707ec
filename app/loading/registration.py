"""What a plugin registers: collected and checked before any of it is served."""

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Unpack

from falcon.constants import COMBINED_METHODS
from falcon.routing.util import SuffixedMethodNotFoundError

from app.errors import LoadError
from app.loading.handlers import read_handler
from app.loading.method_maps import responders_of
from app.loading.mounted import WSGI, Mounted
from app.loading.own_app import answer_nothing
from app.loading.responders import Responder
from app.loading.route_group import RouteGroup, prefix_fault
from app.loading.route_options import NAMES, NONE, OptionError, RouteOptions, Schemes, read_options
from app.loading.routes import Operation, Place, Route
from app.loading.segment_router import StandTogether, template_fault
from app.loading.set_up import SetUp
from app.loading.signatures import HandlerError, describe, resource_fault
from app.plugin import PluginContext, RouteKeywords
from app.records import Endpoint
from app.uri_templates import has_fields

_Handler = Callable[..., Any]


class HandlerResource:
    """A Falcon resource whose responders were made from a plugin's handlers."""

    def set_responder(self, method: str, responder: Responder) -> None:
        """Answer one HTTP method."""
        setattr(self, f"on_{method.lower()}", responder)


class RouteCollector(SetUp):
    """The `PluginServer` that a plugin's `register_routes` is given.

    It collects the routes and their faults; `finish` returns the routes, or raises one error that
    names all faults. So a plugin cannot swallow a fault.
    """

    def __init__(
        self,
        plugin: str,
        place_of: Callable[[FrameType], Place | None],
        generation: str = "",
        *,
        tried: bool = False,
        context: PluginContext | None = None,
    ) -> None:
        """Collect for one plugin.

        Args:
            plugin: its name.
            place_of: returns the file and line of a frame, if they are the plugin's.
            generation: the `Route.generation` of the collected routes.
            tried: whether the plugin's trial has passed. The trial has checked what Falcon makes
                of each template and responder; that check takes a third of a load.
            context: what handlers are given that take a `PluginContext`.
        """
        super().__init__()
        self._tried = tried
        self._templates = None if tried else StandTogether()
        self._context = context
        self._plugin = plugin
        self._generation = generation
        self._place_of = place_of
        self._handlers: dict[str, HandlerResource] = {}
        self._routes: dict[str, tuple[object, str | None]] = {}
        self._places: dict[str, Place | None] = {}
        self._responders: dict[str, dict[str, Responder]] = {}
        self._operations: dict[str, dict[str, Operation]] = {}
        self._endpoints: dict[str, list[Endpoint]] = {}
        self._faults: list[tuple[str, Place | None]] = []
        self._schemes = Schemes()
        self._finished = False

    def get(self, uri_template: str, handler: _Handler, **options: Unpack[RouteKeywords]) -> None:
        """Answer GET on a template with a handler."""
        self._add_handler("GET", uri_template, handler, options)

    def post(self, uri_template: str, handler: _Handler, **options: Unpack[RouteKeywords]) -> None:
        """Answer POST on a template with a handler."""
        self._add_handler("POST", uri_template, handler, options)

    def put(self, uri_template: str, handler: _Handler, **options: Unpack[RouteKeywords]) -> None:
        """Answer PUT on a template with a handler."""
        self._add_handler("PUT", uri_template, handler, options)

    def patch(self, uri_template: str, handler: _Handler, **options: Unpack[RouteKeywords]) -> None:
        """Answer PATCH on a template with a handler."""
        self._add_handler("PATCH", uri_template, handler, options)

    def delete(
        self, uri_template: str, handler: _Handler, **options: Unpack[RouteKeywords]
    ) -> None:
        """Answer DELETE on a template with a handler."""
        self._add_handler("DELETE", uri_template, handler, options)

    def sse(self, uri_template: str, handler: _Handler, **options: Unpack[RouteKeywords]) -> None:
        """Answer GET on a template with the events that a handler yields."""
        self._add_handler("GET", uri_template, handler, options, events=True)

    def add_route(
        self, uri_template: str, resource: object, suffix: str | None = None, **options: Any
    ) -> None:
        """Add a Falcon resource, as `falcon.App.add_route` does.

        Options that are neither `suffix` nor a route's are ignored: `compile` because every route
        is compiled before it is served, the others because Falcon's router does not know them
        either.
        """
        if not self._accepts(uri_template):
            return
        uri_template = str.__str__(uri_template)  # a class of its own would be the plugin's code
        if uri_template in self._routes:
            self._fault(f"the route {uri_template} is registered twice")
            return
        try:
            methods = responders_of(resource, suffix)
        except SuffixedMethodNotFoundError as error:
            self._fault(f"the route {uri_template}: {error}")
            return
        fault = resource_fault(resource, methods, uri_template, tried=self._tried)
        if fault is not None:
            self._fault(f"the resource of {uri_template} {fault}")
            return
        known = {name: value for name, value in options.items() if name in NAMES}
        read = self._read(known, f"the resource of {uri_template}", one_method=False)
        self._routes[uri_template] = (resource, suffix)
        self._note_place(uri_template)
        self._responders[uri_template] = {m: read.around(f, resource) for m, f in methods.items()}
        self._operations[uri_template] = {m: Operation(f, read) for m, f in methods.items()}
        self._endpoints[uri_template] = [
            Endpoint(method, uri_template, describe(responder)[:255])
            for method, responder in methods.items()
        ]

    def group(self, prefix: str, **options: Unpack[RouteKeywords]) -> RouteGroup:
        """Return where to register routes below a prefix, as `/v1`; ValueError if it is none."""
        return RouteGroup(self, prefix, options)

    def mount(self, prefix: str, application: WSGI, **options: Unpack[RouteKeywords]) -> None:
        """Have a WSGI application answer a prefix, as `/shop/admin`, and all below it."""
        fault = prefix_fault(prefix)
        if fault is not None or not callable(application):
            self._fault(
                f"mount: {fault or f'{type(application).__qualname__} is no WSGI application'}"
            )
            return
        read = self._read(options, f"mount of {prefix}", one_method=False)
        mounted = Mounted(prefix, application)
        responder, shown = read.around(mounted, mounted), describe(application)
        for template in (prefix, f"{prefix}/{{path:path}}"):
            if not self._accepts(template):
                return
            if template in self._routes:
                self._fault(f"the route {template} is registered twice")
                return
            self._note_place(template)
            self._add_for_all_methods(template, mounted, responder, shown)
            self._operations[template] = {"*": Operation(application, read)}

    def _add_for_all_methods(
        self, template: str, resource: object, responder: Responder, shown: str
    ) -> None:
        self._routes[template] = (resource, None)
        self._responders[template] = dict.fromkeys(COMBINED_METHODS, responder)
        self._endpoints[template] = [Endpoint("*", template, shown[:255])]

    def _add_fall_backs(self) -> None:
        """Give sinks and static routes the paths that nothing else of the plugin has."""
        for prefix, (resource, place) in self.fall_backs.items():
            below = [t for t in self._routes if t.startswith(f"{prefix}/")]
            for template in (prefix, f"{prefix}/{{path:path}}"):
                beside = has_fields(template) and any(
                    has_fields(other.split("/", 3)[2]) for other in below
                )
                # Falcon's router takes no two fields beside each other; then what has no route is
                # the plugin's as long as it has the segment for itself.
                if template in self._routes or beside:
                    continue
                self._places[template] = place
                self._add_for_all_methods(template, resource, answer_nothing, resource.shown)

    def finish(self) -> tuple[Route, ...]:
        """End the registration and return the routes in the order of their registration.

        Raises:
            LoadError: a route cannot be served; all faults are named.
        """
        self._finished = True
        self._check_media()
        if self._faults:
            place = next((place for _, place in self._faults if place), None)
            raise LoadError(
                self._plugin,
                "; ".join(message for message, _ in self._faults),
                phase="register_routes",
                file=place[0] if place else None,
                line=place[1] if place else None,
            )
        self._add_fall_backs()
        converters = self.converters()
        return tuple(
            Route(
                self._plugin,
                template,
                resource,
                suffix,
                tuple(self._endpoints[template]),
                self._responders[template],
                self._generation,
                self._places.get(template),
                converters,
                self._operations.get(template, {}),
            )
            for template, (resource, suffix) in self._routes.items()
        )

    def _add_handler(
        self, method: str, uri_template: str, handler: _Handler, options: Any, events: bool = False
    ) -> None:
        if not self._accepts(uri_template):
            return
        uri_template = str.__str__(uri_template)  # a class of its own would be the plugin's code
        resource = self._handlers.get(uri_template)
        if resource is None and uri_template in self._routes:
            self._fault(f"the route {uri_template} is registered twice")
            return
        if any(endpoint.method == method for endpoint in self._endpoints.get(uri_template, ())):
            self._fault(f"{method} {uri_template} is registered twice")
            return
        read = self._read(options, f"{method} {uri_template}")
        try:
            responder, signature = read_handler(
                handler,
                uri_template,
                context=self._context,
                events=events,
                media_types=self.media_types(),
                status=read.status,
            )
        except HandlerError as error:
            self._fault(f"{method} {uri_template}: {error}")
            return
        if resource is None:
            resource = self._handlers[uri_template] = HandlerResource()
            self._routes[uri_template] = (resource, None)
            self._note_place(uri_template)
        responder = read.around(responder, getattr(handler, "__self__", resource), uri_template)
        resource.set_responder(method, responder)
        operation = Operation(handler, read, signature)
        self._operations.setdefault(uri_template, {})[method] = operation
        self._responders.setdefault(uri_template, {})[method] = responder
        endpoint = Endpoint(method, uri_template, describe(handler)[:255])
        self._endpoints.setdefault(uri_template, []).append(endpoint)

    def _read(
        self, options: Mapping[str, Any], whose: str, *, one_method: bool = True
    ) -> RouteOptions:
        """Return what keywords say; note what is wrong with them."""
        try:
            return self._schemes.checked(read_options(options, one_method=one_method), whose)
        except OptionError as error:
            self._fault(f"{whose}: {error}")
            return NONE

    def _accepts(self, uri_template: object) -> bool:
        self._refuse_if_finished(
            f"the route {uri_template!r} came", "all routes to be registered inside it"
        )
        fault = template_fault(
            uri_template,
            alone=not self._tried,
            converters=self.converters(),
            others=self._templates,
        )
        if fault is not None:
            self._fault(fault)
            return False
        return True

    def _refuse_if_finished(self, what: str, expected: str) -> None:
        if self._finished:
            text = f"{what} after register_routes had ended, expected {expected}"
            raise LoadError(self._plugin, text, phase="register_routes")

    def _fault(self, message: str) -> None:
        self._faults.append((message, self._place()))

    def _note_place(self, uri_template: str) -> None:
        if not self._tried:  # only a trial reports where routes stand
            self._places[uri_template] = self._place()

    def _place(self) -> Place | None:
        frame: FrameType | None = sys._getframe(1)
        place = None
        while frame is not None and place is None:
            place = self._place_of(frame)
            frame = frame.f_back
        return place
