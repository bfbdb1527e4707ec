"""The route table: an immutable snapshot, built aside and published by one assignment.

A table maps the first segment of a path to a small `falcon.routing.CompiledRouter` that holds
only the routes below that segment, so a swap rebuilds only the segments that it touches. A path
whose template has no fields takes one look-up in `paths`.
"""

from collections.abc import Mapping
from typing import Any

from app.errors import ConflictError
from app.loading.routes import SERVER, MethodMap, Route
from app.loading.segment_router import ROUTING_ERRORS, SegmentRouter
from app.routing.conflict_errors import (
    conflict_alone,
    conflict_between,
    explain_refusal,
    refuse_unquotable,
    reserved_conflict,
)
from app.routing.overlay import MERGED_SHARE, SMALL, Draft, OverlayMap
from app.routing.server_routes import RESERVED_SEGMENTS
from app.uri_templates import first_segment, has_fields, normal_path

Match = tuple[object, MethodMap, dict[str, Any], str | None]
_FIELDS = None
"""The key of the routes whose first segment is a field: any path may be theirs."""


def _key_of(template: str) -> str | None:
    first = first_segment(template)
    return _FIELDS if has_fields(first) else first


class RouteTable:
    """Which route answers which path; never changed once it is built.

    Make the next one as `builder = table.builder()`, `builder.remove(…)`, `builder.add(…)`,
    `builder.build()`. `paths` holds the routes without fields by their whole path, `routers` the
    routers of the others by first segment; `number` grows by one with every table of a process.
    """

    __slots__ = (
        *("apps", "number", "owned", "paths", "plain_paths", "plain_routers", "routers"),
        "segments",
    )

    def __init__(
        self,
        number: int,
        owned: OverlayMap[str, tuple[Route, ...]],
        segments: OverlayMap[str | None, tuple[Route, ...]],
        paths: OverlayMap[str, Route],
        routers: OverlayMap[str | None, SegmentRouter],
        apps: Mapping[str, Any],
    ) -> None:
        self.number = number
        self.apps = apps
        """The applications of the plugins that have one of their own."""
        self.owned = owned
        self.segments = segments
        self.paths = paths
        self.routers = routers
        # For `LiveApp`, which asks plain dicts as long as there are only such.
        whole_paths, whole_routers = paths.whole, routers.whole
        self.plain_paths: Mapping[str, Route] = {}
        self.plain_routers: Mapping[str | None, SegmentRouter] = {}
        if whole_paths is not None and whole_routers is not None:
            self.plain_paths, self.plain_routers = whole_paths, whole_routers

    @classmethod
    def empty(cls, small: int = SMALL, merged_share: float = MERGED_SHARE) -> "RouteTable":
        """Return the table without routes; the arguments are those of its `OverlayMap`s."""

        def mapping() -> OverlayMap[Any, Any]:
            return OverlayMap({}, None, small, merged_share)

        return cls(0, mapping(), mapping(), mapping(), mapping(), {})

    def search(self, path: str) -> Match | None:
        """Find the route of a path that is no key of `paths` as it stands.

        Returns:
            Falcon's four: resource, method map, fields, template; or None.
        """
        normal = normal_path(path)
        route = self.paths.find(normal)
        if route is not None:
            return route.resource, route.methods, {}, route.template
        segment = first_segment(normal)
        router = self.routers.find(segment)
        match: Match | None
        if router is not None:
            match = router.find(normal)
            if match is not None and match[0] is not None:
                return match
        if segment in RESERVED_SEGMENTS:
            return None  # the server's, also where it routes nothing: no plugin's field takes it
        router = self.routers.find(_FIELDS)
        if router is None:
            return None
        match = router.find(normal)
        return match

    def nowhere(self, path: str) -> Route | None:
        """Return what stands for the route of a path that has none, in a plugin's own application.

        That is of the plugin to whom alone the path's first segment belongs.
        """
        segment = first_segment(normal_path(path))
        owners = {route.owner for route in self.segments.find(segment) or ()}
        app = self.apps.get(*owners) if len(owners) == 1 else None
        route: Route | None = None if app is None else app.nowhere
        return route

    def owner_at_fault(self, path: str) -> str | None:
        """Return the owner whose converter raises for a path, None if there is none.

        Call it after a search that raised: a router holds the routes of several owners, and does
        not say whose route it was trying.
        """
        for segment in (first_segment(path), _FIELDS):
            for route in self.segments.find(segment) or ():
                if not has_fields(route.template):
                    continue
                alone = SegmentRouter()
                alone.add(route)
                try:
                    alone.find(path)
                except Exception:  # noqa: BLE001 - what a converter raises is its own affair
                    return route.owner
        return None

    def builder(self) -> "TableBuilder":
        """Begin the next table."""
        return TableBuilder(self)


class TableBuilder:
    """Builds the next route table; the table that it began with stays as it is."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table
        self._owned = Draft(table.owned)
        self._segments = Draft(table.segments)
        self._apps = dict(table.apps)
        self._touched: dict[str | None, SegmentRouter | None] = {}
        """The unfinished router of each touched segment; None if it must be made anew."""

    def remove(self, owner: str) -> tuple[Route, ...]:
        """Remove all routes of an owner and return them."""
        routes = self._owned.find(owner) or ()
        self._owned.drop(owner)
        self._apps.pop(owner, None)
        for segment in {_key_of(route.template) for route in routes}:
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
            by_segment.setdefault(_key_of(route.template), []).append(route)
        if owner != SERVER:
            reserved = [r for r in routes if first_segment(r.template) in RESERVED_SEGMENTS]
            if reserved:
                raise reserved_conflict(owner, reserved)
            refuse_unquotable(owner, routes)
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
        if routes and routes[0].app is not None:
            self._apps[owner] = routes[0].app

    def build(self) -> RouteTable:
        """Compile what changed and return the new table."""
        old = self._table
        paths, routers = Draft(old.paths), Draft(old.routers)
        for segment in self._touched:
            for route in old.segments.find(segment) or ():
                paths.drop(normal_path(route.template))
            routers.drop(segment)
        for segment in self._touched:
            routes = self._routes(segment)
            for route in routes:
                if not has_fields(route.template):
                    paths.put(normal_path(route.template), route)
            if any(has_fields(route.template) for route in routes):
                router = self._touched[segment] or self._router(segment)
                router.finish()
                routers.put(segment, router)
        owned, segments = self._owned.finish(), self._segments.finish()
        finished = owned, segments, paths.finish(), routers.finish()
        return RouteTable(old.number + 1, *finished, self._apps)

    def _routes(self, segment: str | None) -> tuple[Route, ...]:
        return self._segments.find(segment) or ()

    def _extend(self, owner: str, segment: str | None, new: list[Route]) -> None:
        present = {normal_path(r.template): r for r in self._routes(segment)}
        for route in new:
            other = present.get(normal_path(route.template))
            if other is not None:
                raise conflict_between(owner, route, other)
            present[normal_path(route.template)] = route
        fields = any(map(has_fields, present))
        former = self._table.routers.find(segment) if fields else None
        if former is not None:
            same = former.with_others((*self._routes(segment), *new))
            if same is not None:  # they exclude each other as little as they did
                self._touched[segment] = same
                return
        if fields:
            router = self._router(segment)
        else:
            self._touched[segment] = None  # literals alone never exclude those that are there
            router = SegmentRouter()
        for route in new:
            try:
                router.add(route)
            except ROUTING_ERRORS as error:
                others = (*self._routes(segment), *new)
                raise explain_refusal(owner, route, others, error) from None
        try:
            if fields:
                router.compile()
        except ROUTING_ERRORS as error:
            fault = next(filter(None, map(conflict_alone, new)), None)
            raise fault or ConflictError(owner, f"its routes together: {error}") from None

    def _router(self, segment: str | None) -> SegmentRouter:
        router = self._touched.get(segment)
        if router is None or router.is_whole:
            router = SegmentRouter()
            for route in self._routes(segment):
                router.add(route)
            self._touched[segment] = router
        return router
