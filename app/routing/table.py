"""The route table: an immutable snapshot, built aside and published by one assignment.

A table maps the first segment of a path to a small `falcon.routing.CompiledRouter` that holds
only the routes below that segment, so a swap rebuilds only the segments that it touches. A path
whose template has no fields is found by one look-up in `exact`.
"""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from app.errors import ConflictError
from app.loading.routes import MethodMap, Place, Route
from app.loading.templates import ROUTING_ERRORS, SegmentRouter, routing_fault, unquotable
from app.routing.overlay import Draft, OverlayMap

SERVER = "the server"
"""The owner of the server's own routes."""

RESERVED_SEGMENTS = frozenset(
    {"plugins", "workers", "health", "metrics", "openapi.json", "swagger", "ui"}
)

Found = tuple[object, MethodMap, dict[str, Any], str | None]
_FIELDS = None
"""The key of the routes whose first segment is a field: any path may be theirs."""


def _segment_of(template: str) -> str | None:
    first = template.lstrip("/").partition("/")[0]
    return _FIELDS if "{" in first else first


def _normal(path: str) -> str:
    # Falcon's router strips leading slashes before it splits, so `//a` is `/a`.
    return "/" + path.lstrip("/")


class RouteTable:
    """Which resource answers which path; never changed once it is built.

    `number` grows by one with every table of a process.
    """

    __slots__ = ("exact", "finders", "number", "owned", "paths", "routers", "segments")

    def __init__(
        self,
        number: int,
        owned: OverlayMap[str, tuple[Route, ...]],
        segments: OverlayMap[str | None, tuple[Route, ...]],
        exact: OverlayMap[str, Route],
        finders: OverlayMap[str | None, SegmentRouter],
    ) -> None:
        self.number = number
        self.owned = owned
        self.segments = segments
        self.exact = exact
        self.finders = finders
        # For `LiveApp`, which asks plain dicts as long as there are only such.
        paths, routers = exact.whole, finders.whole
        self.paths: Mapping[str, Route] = {}
        self.routers: Mapping[str | None, SegmentRouter] = {}
        if paths is not None and routers is not None:
            self.paths, self.routers = paths, routers

    @classmethod
    def empty(cls) -> "RouteTable":
        """Return the table that finds nothing."""
        return cls(0, OverlayMap({}), OverlayMap({}), OverlayMap({}), OverlayMap({}))

    def search(self, path: str) -> Found | None:
        """Find the route of a path that `exact` does not hold as it stands.

        Returns:
            Falcon's four: resource, method map, fields, template; or None.
        """
        normal = _normal(path)
        hit = self.exact.find(normal)
        if hit is not None:
            return hit.resource, hit.methods, {}, hit.template
        segment = normal[1:].partition("/")[0]
        finder = self.finders.find(segment)
        found: Found | None
        if finder is not None:
            found = finder.find(normal)
            if found is not None and found[0] is not None:
                return found
        if segment in RESERVED_SEGMENTS:
            return None  # the server's, also where it routes nothing: no plugin's field takes it
        finder = self.finders.find(_FIELDS)
        if finder is None:
            return None
        found = finder.find(normal)
        return found

    def owner_at_fault(self, path: str) -> str | None:
        """Return whose converter raises for a path, None if nobody's does.

        For a search that raised: a router holds the routes of several owners, and does not say
        which one it was at.
        """
        for segment in (_normal(path)[1:].partition("/")[0], _FIELDS):
            for route in self.segments.find(segment) or ():
                if "{" not in route.template:
                    continue
                alone = SegmentRouter()
                _insert(alone, route)
                try:
                    alone.find(path)
                except Exception:  # noqa: BLE001 - what a converter raises is its own affair
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
                finder.compile()
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
            except ROUTING_ERRORS as error:
                raise self._explain(owner, segment, route, new, error) from None
        try:
            if fields:
                router.compile()
        except ROUTING_ERRORS as error:
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
        fault = _fault_alone(route)
        if fault is not None:
            return fault
        for other in (*self._routes(segment), *new):
            if other is route:
                continue
            pair = SegmentRouter()
            try:
                _insert(pair, other)
                _insert(pair, route)
            except ROUTING_ERRORS:
                return _conflict(owner, route, other)
        return _error(owner, f"the route {route.template}: {error}", route)


def find_conflict(
    plugin: str,
    templates: Iterable[str],
    others: Mapping[str, Iterable[str]],
    places: Mapping[str, Place] | None = None,
) -> ConflictError | None:
    """Tell whether a plugin's templates can stand beside those of the others.

    Args:
        plugin: the plugin's name.
        templates: its URI templates.
        others: the templates of every other owner, by owner; as they stood together before.
        places: where the plugin registers its templates, for the error.
    """
    builder = RouteTable.empty().builder()
    found = places or {}
    for owner, theirs in others.items():
        with contextlib.suppress(ConflictError):  # theirs to answer for, not this plugin's
            builder.add(owner, tuple(Route(owner, template, _NOBODY) for template in theirs))
    try:
        builder.add(plugin, tuple(Route(plugin, t, _NOBODY, place=found.get(t)) for t in templates))
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
        return _error(
            owner, f"the routes {other.template} and {route.template} exclude each other", route
        )
    how = "is owned by" if other.template == route.template else "excludes a route of"
    whose = other.owner if other.owner == SERVER else f"the plugin {other.owner!r}"
    named = "" if other.template == route.template else f" ({other.template})"
    return _error(
        owner,
        f"the route {route.template} of the plugin {owner!r} {how} {whose}{named}; "
        "expected a template of its own",
        route,
    )


def _error(owner: str, message: str, route: Route) -> ConflictError:
    """Return an error at the place where a route is registered, if that is known."""
    file, line = route.place or (None, None)
    return ConflictError(owner, message, file=file, line=line)


def _refuse_reserved(owner: str, routes: Iterable[Route]) -> None:
    taken = [route for route in routes if _segment_of(route.template) in RESERVED_SEGMENTS]
    if taken:
        named = ", ".join(route.template for route in taken)
        raise _error(
            owner,
            f"the route {named} of the plugin {owner!r} is owned by {SERVER}; expected a template "
            "that begins otherwise",
            taken[0],
        )


def _refuse_unquotable(owner: str, routes: Iterable[Route]) -> None:
    for route in routes:
        found = unquotable(route.template)
        if found is not None:
            raise _error(owner, f"the route {route.template}: it {found}", route)


def _fault_alone(route: Route) -> ConflictError | None:
    """Tell what is wrong with a route even where it stands alone."""
    found = routing_fault(route.template)
    if found is None:
        return None
    return _error(route.owner, f"the route {route.template}: {found}", route)
