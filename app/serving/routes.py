"""The route table: an immutable snapshot, built aside and published by one assignment.

A table maps the first segment of a path to a small `falcon.routing.CompiledRouter` that holds
only the routes below that segment, so a swap rebuilds only the segments that it touches. A path
whose template has no fields is found by one look-up in `exact`.
"""

import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from falcon.routing import CompiledRouter

from app.errors import ConflictError
from app.serving.layers import Draft, Layers
from app.serving.registration import MethodMap, Route

SERVER = "the server"
"""The owner of the server's own routes."""

RESERVED_SEGMENTS = frozenset(
    {"plugins", "workers", "health", "metrics", "openapi.json", "swagger", "ui"}
)

Found = tuple[object, MethodMap, dict[str, Any], str | None]
_UNQUOTABLE = re.compile("['\\\\\0\ud800-\udfff]")
_FIELDS = None
"""The key of the routes whose first segment is a field: any path may be theirs."""


def _segment_of(template: str) -> str | None:
    first = template.lstrip("/").partition("/")[0]
    return _FIELDS if "{" in first else first


def _normal(path: str) -> str:
    # Falcon's router strips leading slashes before it splits, so `//a` is `/a`.
    return "/" + path.lstrip("/")


class SegmentRouter(CompiledRouter):
    """Falcon's router, given each route's method map instead of looking it up in the resource."""

    if TYPE_CHECKING:

        def find(self, uri: str, req: Any = None) -> Found | None:
            """Find a path; the method map is the one that came with the route."""

    def map_http_methods(self, resource: object, **kwargs: Any) -> dict[str, Any]:
        """Return the method map that came with the route."""
        methods: dict[str, Any] = kwargs["methods"]
        return methods


class RouteTable:
    """Which resource answers which path; never changed once it is built.

    `number` grows by one with every table of a process.
    """

    __slots__ = ("exact", "finders", "number", "owned", "paths", "routers", "segments")

    def __init__(
        self,
        number: int,
        owned: Layers[str, tuple[Route, ...]],
        segments: Layers[str | None, tuple[Route, ...]],
        exact: Layers[str, Route],
        finders: Layers[str | None, SegmentRouter],
    ) -> None:
        self.number = number
        self.owned = owned
        self.segments = segments
        self.exact = exact
        self.finders = finders
        # For `LiveApp`, which asks plain dicts as long as there are only such.
        paths, routers = exact.whole, finders.whole
        self.paths = None if routers is None else paths
        self.routers = routers or {}

    @classmethod
    def empty(cls) -> "RouteTable":
        """Return the table that finds nothing."""
        return cls(0, Layers({}), Layers({}), Layers({}), Layers({}))

    def search(self, path: str) -> Found | None:
        """Find the route of a path that `exact` does not hold as it stands.

        Returns:
            Falcon's four: resource, method map, fields, template; or None.
        """
        normal = _normal(path)
        hit = self.exact.find(normal)
        if hit is not None:
            return hit.resource, hit.methods, {}, hit.template
        finder = self.finders.find(normal[1:].partition("/")[0])
        if finder is not None:
            found = finder.find(normal)
            if found is not None and found[0] is not None:
                return found
        finder = self.finders.find(_FIELDS)
        return None if finder is None else finder.find(normal)

    def owner_of(self, template: str | None) -> str | None:
        """Return who owns a template, None if nobody does."""
        if template is None:
            return None
        for route in self.segments.find(_segment_of(template)) or ():
            if route.template == template:
                return route.owner
        return None

    def builder(self) -> "TableBuilder":
        """Begin the next table."""
        return TableBuilder(self)


class TableBuilder:
    """The next route table in the making; the table that it began with stays as it is."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self._owned = Draft(table.owned)
        self._segments = Draft(table.segments)
        self._touched: dict[str | None, SegmentRouter | None] = {}
        """Each touched segment's router in the making; None where it is to be made anew."""

    def remove(self, owner: str) -> tuple[Route, ...]:
        """Take all routes of an owner away and return them."""
        routes = self._owned.find(owner) or ()
        self._owned.drop(owner)
        for segment in {_segment_of(route.template) for route in routes}:
            before = self._routes(segment)
            kept = tuple(route for route in before if route.owner != owner)
            if kept:
                self._segments.put(segment, kept)
            else:
                self._segments.drop(segment)
            self._touched[segment] = None
        return routes

    def add(self, owner: str, routes: tuple[Route, ...]) -> None:
        """Give an owner its routes, all or none.

        Raises:
            ConflictError: a route belongs to somebody else, or two of these exclude each other.
        """
        by_segment: dict[str | None, list[Route]] = {}
        for route in routes:
            by_segment.setdefault(_segment_of(route.template), []).append(route)
        if owner != SERVER:
            _refuse_reserved(owner, routes)
            _refuse_unquotable(owner, routes)
        done: list[str | None] = []
        try:
            for segment, new in by_segment.items():
                done.append(segment)
                self._extend(owner, segment, new)
        except ConflictError:
            for segment in done:
                self._touched[segment] = None
            raise
        for segment, new in by_segment.items():
            self._segments.put(segment, (*self._routes(segment), *new))
        self._owned.put(owner, routes)

    def build(self) -> RouteTable:
        """Compile what changed and return the new table."""
        old = self._table
        exact, finders = Draft(old.exact), Draft(old.finders)
        for segment in self._touched:
            for route in old.segments.find(segment) or ():
                exact.drop(_normal(route.template))
            finders.drop(segment)
        for segment in self._touched:
            routes = self._routes(segment)
            for route in routes:
                if "{" not in route.template:
                    exact.put(_normal(route.template), route)
            if any("{" in route.template for route in routes):
                finder = self._router(segment)
                _compile(finder)
                finders.put(segment, finder)
        owned, segments = self._owned.finish(), self._segments.finish()
        return RouteTable(old.number + 1, owned, segments, exact.finish(), finders.finish())

    def _routes(self, segment: str | None) -> tuple[Route, ...]:
        return self._segments.find(segment) or ()

    def _extend(self, owner: str, segment: str | None, new: list[Route]) -> None:
        present = {_normal(r.template): r for r in self._routes(segment)}
        for route in new:
            other = present.get(_normal(route.template))
            if other is not None:
                raise _conflict(owner, route, other)
            present[_normal(route.template)] = route
        fields = any("{" in template for template in present)
        if fields:
            router = self._router(segment)
        else:
            self._touched[segment] = None  # literals alone never exclude those that are there
            router = SegmentRouter()
        for route in new:
            try:
                _insert(router, route)
            except (ValueError, re.error) as error:
                raise self._explain(owner, segment, route, new, error) from None
        try:
            if fields:
                _compile(router)
        except (ValueError, SyntaxError, re.error) as error:
            fault = next(filter(None, map(_fault_alone, new)), None)
            raise fault or ConflictError(owner, f"its routes together: {error}") from None

    def _router(self, segment: str | None) -> SegmentRouter:
        router = self._touched.get(segment)
        if router is None:
            router = SegmentRouter()
            for route in self._routes(segment):
                _insert(router, route)
            self._touched[segment] = router
        return router

    def _explain(
        self, owner: str, segment: str | None, route: Route, new: list[Route], error: Exception
    ) -> ConflictError:
        for other in (*self._routes(segment), *new):
            if other is route:
                continue
            pair = SegmentRouter()
            try:
                _insert(pair, other)
                _insert(pair, route)
            except ValueError:
                return _conflict(owner, route, other)
        return ConflictError(owner, f"the route {route.template}: {error}")


def find_conflict(
    plugin: str, templates: Iterable[str], others: Mapping[str, Iterable[str]]
) -> ConflictError | None:
    """Tell whether a plugin's templates can stand beside those of the others.

    Args:
        plugin: the plugin's name.
        templates: its URI templates.
        others: the templates of every other owner, by owner; as they stood together before.
    """
    builder = RouteTable.empty().builder()
    for owner, theirs in others.items():
        with contextlib.suppress(ConflictError):  # theirs to answer for, not this plugin's
            builder.add(owner, tuple(Route(owner, template, _NOBODY) for template in theirs))
    try:
        builder.add(plugin, tuple(Route(plugin, template, _NOBODY) for template in templates))
    except ConflictError as error:
        return error
    return None


class _Nobody:
    """Stands for the resource where only templates are compared."""


_NOBODY = _Nobody()


def _insert(router: SegmentRouter, route: Route) -> None:
    router.add_route(route.template, route.resource, methods=route.methods)


def _conflict(owner: str, route: Route, other: Route) -> ConflictError:
    if other.owner == owner:
        return ConflictError(
            owner, f"the routes {other.template} and {route.template} exclude each other"
        )
    how = "is owned by" if other.template == route.template else "excludes a route of"
    whose = other.owner if other.owner == SERVER else f"the plugin {other.owner!r}"
    named = "" if other.template == route.template else f" ({other.template})"
    return ConflictError(
        owner,
        f"the route {route.template} of the plugin {owner!r} {how} {whose}{named}; "
        "expected a template of its own",
    )


def _refuse_reserved(owner: str, routes: Iterable[Route]) -> None:
    taken = [r.template for r in routes if _segment_of(r.template) in RESERVED_SEGMENTS]
    if taken:
        raise ConflictError(
            owner,
            f"the route {', '.join(taken)} of the plugin {owner!r} is owned by {SERVER}; expected "
            "a template that begins otherwise",
        )


def _refuse_unquotable(owner: str, routes: Iterable[Route]) -> None:
    # Falcon writes a template's text into Python source between quotes, as it stands.
    for route in routes:
        if _UNQUOTABLE.search(route.template):
            raise ConflictError(
                owner,
                f"the route {route.template}: it holds a quote, a backslash, NUL or a lone "
                "surrogate",
            )


def _compile(router: SegmentRouter) -> None:
    """Compile what Falcon leaves for the first request: it shall not wait, nor find a fault."""
    router.find("/")


def _fault_alone(route: Route) -> ConflictError | None:
    """Tell what is wrong with a route even where it stands alone."""
    router = SegmentRouter()
    try:
        _insert(router, route)
        _compile(router)
    except (ValueError, SyntaxError, re.error) as error:
        return ConflictError(route.owner, f"the route {route.template}: {error}")
    return None
