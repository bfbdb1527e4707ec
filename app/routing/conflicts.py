"""Whether a plugin's routes can stand beside those of the others."""

import contextlib
from collections.abc import Iterable, Mapping

from app.errors import ConflictError
from app.loading.routes import Place, Route
from app.routing.table import RouteTable, TableBuilder

_NOBODY = object()
"""Stands for the resource where only templates are compared."""

_NOTHING = {"GET": lambda *_: None}
"""Stands for its responders."""


def find_conflict(
    plugin: str,
    templates: Iterable[str],
    others: Mapping[str, Iterable[str]],
    places: Mapping[str, Place] | None = None,
) -> ConflictError | None:
    """Return why a plugin's templates cannot stand beside those of the others, None if they can.

    Args:
        plugin: the plugin's name.
        templates: its URI templates.
        others: the templates of each other owner; these stand together already.
        places: where the plugin registers its templates, for the error.
    """
    builder = RouteTable.empty().builder()
    places = places or {}
    for owner, theirs in others.items():
        with contextlib.suppress(ConflictError):  # theirs to answer for, not this plugin's
            builder.add(owner, tuple(_route(owner, template) for template in theirs))
    return _refusal(builder, plugin, tuple(_route(plugin, t, places.get(t)) for t in templates))


def conflict_within(plugin: str, routes: tuple[Route, ...]) -> ConflictError | None:
    """Return why a plugin's routes cannot stand beside each other, None if they can."""
    return _refusal(RouteTable.empty().builder(), plugin, routes)


def _refusal(builder: TableBuilder, plugin: str, routes: tuple[Route, ...]) -> ConflictError | None:
    try:
        builder.add(plugin, routes)
    except ConflictError as error:
        return error
    return None


def _route(owner: str, template: str, place: Place | None = None) -> Route:
    return Route(owner, template, _NOBODY, responders=_NOTHING, place=place)
