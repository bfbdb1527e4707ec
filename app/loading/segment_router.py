"""Falcon's router for the routes below one first segment, and which templates it cannot serve."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from falcon.routing import CompiledRouter

from app.loading.method_maps import add_default_responders
from app.loading.routes import Route
from app.uri_templates import converter_names, quoting_fault, rename_converters

MAX_TEMPLATE_LENGTH = 500
DEEP = 20
"""A template with more segments is compiled alone before it is accepted: Python takes 100 levels
of indentation, and Falcon's router needs one to three for each segment."""

_SAMPLES = ("", "a", *("0" * length for length in range(1, 33)))
"""Texts that make a converter raise if its arguments are of a wrong type, as of `dt(5)`."""


class SegmentRouter(CompiledRouter):
    """Falcon's router for the routes below one first segment.

    `add` each route, then `finish`, then `find`. A route brings its method map along: Falcon's own
    router would make it again from the resource, for each table.

    Who has no time for the calls asks what `find` asks, `finder(segments, routes, patterns,
    converters, fields)`: it returns the route, or None, and fills in the fields.
    """

    def __init__(self) -> None:
        super().__init__()
        self.finder: Any = None
        """Falcon's compiled function; None until `finish`."""
        self.routes: list[Route | None] = []
        """What it returns of, by its own numbers."""
        self.patterns: Any = ()
        self.converters: Any = ()
        self._added: list[Route] = []
        self._order: list[int | None] = []
        """Which of the added routes each number stands for."""

    def add(self, route: Route) -> None:
        """Add a route.

        A converter of a plugin's own has another name here: two plugins may call theirs alike.

        Raises:
            ROUTING_ERRORS: it is no template, or it excludes one that is there.
        """
        template = route.template
        if route.converters:
            names = {name: f"{name}__{route.owner}" for name in route.converters}
            template = rename_converters(template, names)
            for name, converter in route.converters.items():
                self.options.converters.data[names[name]] = converter
        self.add_route(template, route.resource, methods=route.methods)
        self._added.append(route)
        self.finder = None

    def finish(self) -> None:
        """Compile, and give what `find` asks; nothing to do where that is done."""
        if self.finder is not None:
            return
        self.compile()
        numbers = {id(route.methods): number for number, route in enumerate(self._added)}
        maps: list[Any] = [node.method_map for node in self._return_values]
        self._order = [None if methods is None else numbers[id(methods)] for methods in maps]
        self._take(self._added)
        self.finder, self.patterns, self.converters = self._find, self._patterns, self._converters

    def with_others(self, routes: Sequence[Route]) -> "SegmentRouter | None":
        """Return the router of other routes with the same templates, None where they differ.

        An edit seldom changes a plugin's templates, and to compile them takes longer than all else
        of a table. What is returned holds nothing of the routes that were here, and takes no more:
        `is_whole`.

        Args:
            routes: all that it is to have, in order.
        """
        if self.finder is None or len(routes) != len(self._added):
            return None
        for known, route in zip(self._added, routes, strict=True):
            # A converter of a plugin's own is another class in each version.
            if known.template != route.template or known.converters or route.converters:
                return None
        made = SegmentRouter()
        made.finder, made.patterns, made.converters = self.finder, self.patterns, self.converters
        made._order = self._order
        made._added = list(routes)
        made._take(made._added)
        made.is_whole = True
        return made

    is_whole = False
    """Whether no route can be added, because it was made of another one."""

    def _take(self, routes: Sequence[Route]) -> None:
        self.routes = [None if number is None else routes[number] for number in self._order]

    def find(self, uri: str, req: Any = None) -> Any:
        """Find a path; Falcon's four, the method map is the one that came with the route."""
        self.finish()
        fields: dict[str, Any] = {}
        segments = uri.lstrip("/").split("/")
        route = self.finder(segments, self.routes, self.patterns, self.converters, fields)
        return None if route is None else (route.resource, route.methods, fields, route.template)

    def map_http_methods(self, resource: object, **kwargs: Any) -> dict[str, Any]:
        """Return the method map that came with the route."""
        methods: dict[str, Any] = kwargs["methods"]
        return methods

    def _require_non_coroutine_responders(self, method_map: dict[str, Any]) -> None:
        """Do nothing: the collector has checked it once, so not every table needs to."""

    def compile(self) -> None:
        """Compile now what Falcon compiles at the first request, which would wait, or fail."""
        if self._find == self._compile_and_find:  # otherwise it is compiled already
            self._find = self._compile()

    def converter_fault(self) -> str | None:
        """Tell which converter raises where it must convert a text or refuse it, None if none."""
        for converter in self._converters:
            for text in _SAMPLES:
                try:
                    converter.convert(text)
                except Exception as error:  # noqa: BLE001 - it would be a 500 at a request
                    name = type(converter).__name__
                    return f"its {name} raises for {text!r} ({type(error).__name__}: {error})"
        return None


ROUTING_ERRORS = (ValueError, SyntaxError, re.error)
"""What Falcon's router raises for a template that it cannot take."""


def template_fault(
    uri_template: object,
    *,
    alone: bool = True,
    converters: Mapping[str, Any] = MappingProxyType({}),
    others: "StandTogether | None" = None,
) -> str | None:
    """Tell why a template cannot be served, None if it can.

    Args:
        uri_template: the template.
        alone: whether to try it in a router, too.
        converters: the plugin's own, by name.
        others: those that were tried before it; it is one of them then.
    """
    if not isinstance(uri_template, str) or not uri_template.startswith("/"):
        return f"the template is {uri_template!r}, expected text that starts with '/'"
    uri_template = str.__str__(uri_template)  # what is kept of it must not be a plugin's object
    if len(uri_template) > MAX_TEMPLATE_LENGTH or "\0" in uri_template:
        return (
            f"the template {uri_template[:40]!r}… has {len(uri_template):,} characters, "
            f"expected {MAX_TEMPLATE_LENGTH} at most and no NUL"
        )
    if "//" in uri_template:
        return f"the template {uri_template!r} holds '//', expected single slashes, as in Falcon"
    fault = quoting_fault(uri_template)
    if fault is not None:
        return f"the template {uri_template!r} {fault}"
    if not alone:
        return None
    # Most templates have neither, and compiling takes ten times as long as the rest.
    thorough = uri_template.count("/") > DEEP or "(" in uri_template
    thorough |= bool(converters) and not converters.keys().isdisjoint(converter_names(uri_template))
    if not thorough and others is not None and others.take(uri_template):
        return None
    fault = routing_fault(uri_template, compiled=thorough, converters=converters)
    return None if fault is None else f"the template {uri_template!r}: {fault}"


class StandTogether:
    """Templates that Falcon's router takes together, and so each alone.

    To make a router takes four times as long as to add a template to one that is there.
    """

    def __init__(self) -> None:
        self._router = SegmentRouter()

    def take(self, uri_template: str) -> bool:
        """Add a template; return whether it stands with the others: it may stand alone if not."""
        try:
            self._router.add_route(uri_template, self._router, methods=_NO_METHODS)
        except ROUTING_ERRORS:
            self._router = SegmentRouter()  # of this one a part may be there
            return False
        return True


def routing_fault(
    uri_template: str,
    *,
    compiled: bool = True,
    converters: Mapping[str, Any] = MappingProxyType({}),
) -> str | None:
    """Tell why Falcon's router refuses a template that stands alone, None if it takes it.

    With `compiled` also why it would refuse it, or raise, at a request.
    """
    router = SegmentRouter()
    router.options.converters.data.update(converters)
    try:
        router.add_route(uri_template, router, methods=_NO_METHODS)
        if compiled:
            router.compile()
    except ROUTING_ERRORS as error:
        cause = error.__cause__
        return str(error) if cause is None else f"{error} ({type(cause).__name__}: {cause})"
    return router.converter_fault() if compiled else None


_NO_METHODS: dict[str, Any] = {}
add_default_responders(_NO_METHODS)
