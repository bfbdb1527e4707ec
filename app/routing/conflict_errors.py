"""Why a route cannot stand in a table: errors that name the routes, the owners and the line."""

from collections.abc import Iterable, Sequence

from app.errors import ConflictError
from app.loading.routes import SERVER, Route, describe_owner
from app.loading.segment_router import ROUTING_ERRORS, SegmentRouter, routing_fault
from app.uri_templates import FIELD_PATTERN, quoting_fault, split_segments


def conflict_between(owner: str, route: Route, other: Route) -> ConflictError:
    """Say that a route of `owner` cannot stand beside another one."""
    if other.owner == owner:
        return conflict_at(
            owner,
            f"the routes {other.template} and {route.template} exclude each other"
            f"{_other_names(other.template, route.template)}",
            route,
        )
    how = "is owned by" if other.template == route.template else "excludes a route of"
    whose = describe_owner(other.owner)
    named = "" if other.template == route.template else f" ({other.template})"
    return conflict_at(
        owner,
        f"the route {route.template} of the plugin {owner!r} {how} {whose}{named}; "
        "expected a template of its own",
        route,
    )


def _other_names(one: str, another: str) -> str:
    """Say where two templates have other names for one field, nothing if they do not."""
    for a, b in zip(split_segments(one), split_segments(another), strict=False):
        if a != b:
            is_name = _without_names(a) == _without_names(b)
            return f"; expected the same names of fields in {a} and {b}" if is_name else ""
    return ""


def _without_names(segment: str) -> str:
    return FIELD_PATTERN.sub(lambda field: "{" + field[0][1 + len(field["fname"]) :], segment)


def conflict_at(owner: str, message: str, route: Route) -> ConflictError:
    """Return an error at the place where a route is registered, if that is known."""
    file, line = route.place or (None, None)
    return ConflictError(owner, message, file=file, line=line)


def reserved_conflict(owner: str, routes: Sequence[Route]) -> ConflictError:
    """Say that routes of `owner` begin with a segment of the server's."""
    templates = ", ".join(route.template for route in routes)
    return conflict_at(
        owner,
        f"the route {templates} of the plugin {owner!r} is owned by {SERVER}; expected a template "
        "that begins otherwise",
        routes[0],
    )


def refuse_unquotable(owner: str, routes: Iterable[Route]) -> None:
    """Refuse routes whose templates hold text that Falcon's router cannot hold.

    Raises:
        ConflictError: one of them does.
    """
    for route in routes:
        fault = quoting_fault(route.template)
        if fault is not None:
            raise conflict_at(owner, f"the route {route.template}: it {fault}", route)


def conflict_alone(route: Route) -> ConflictError | None:
    """Say what is wrong with a route even where it stands alone, None if nothing is."""
    fault = routing_fault(route.template, converters=route.converters)
    if fault is None:
        return None
    return conflict_at(route.owner, f"the route {route.template}: {fault}", route)


def explain_refusal(
    owner: str, route: Route, others: Iterable[Route], error: Exception
) -> ConflictError:
    """Say why a router refused a route: for itself, or because of which other one.

    Args:
        owner: who adds the route.
        route: the refused route.
        others: the routes that it must stand beside.
        error: what the router raised, one of `ROUTING_ERRORS`.
    """
    fault = conflict_alone(route)
    if fault is not None:
        return fault
    for other in others:
        if other is route:
            continue
        pair = SegmentRouter()
        try:
            pair.add(other)
            pair.add(route)
        except ROUTING_ERRORS:
            return conflict_between(owner, route, other)
    return conflict_at(owner, f"the route {route.template}: {error}", route)
