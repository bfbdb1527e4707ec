"""What one owner of routes contributes to a document: plain JSON, nothing of its code."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.admin.openapi.defaults import drop_unfit_defaults
from app.admin.openapi.json_check import NotDescribedError, checked_json
from app.admin.openapi.operation import (
    METHODS,
    Described,
    default_id,
    operations_of,
    write_operation,
)
from app.admin.openapi.references import lost_reference, rename_own
from app.admin.openapi.responses import PROBLEM_NAME, Errors
from app.admin.openapi.schemas import Schema, Schemas
from app.inspection import name_of
from app.loading.routes import Route
from app.uri_templates import FIELD_PATTERN, normal_path

log = logging.getLogger(__name__)

_NOTHING = {"GET": lambda *_: None}
"""Stands for responders where only templates are described."""

_BELOW = "/{path:path}"
"""What the second route of a mounted application ends with; see `registration.mount`."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """The paths of one owner, and the components that they refer to."""

    paths: dict[str, dict[str, Any]] = field(default_factory=dict)
    schemas: dict[str, Schema] = field(default_factory=dict)
    security: dict[str, Any] = field(default_factory=dict)
    lacks: tuple[str, ...] = ()
    """What could not be described, a sentence each."""
    is_whole: bool = True
    """Whether more than the methods of the routes could be described."""


def write_fragment(owner: str, routes: Sequence[Route], prefix: str) -> Fragment:
    """Describe an owner's routes; whatever its code raises is logged, and is in `lacks`.

    Args:
        owner: whose routes they are.
        routes: the routes.
        prefix: what the names of its operations and components begin with.
    """
    try:
        fragment = _proven(_write(owner, routes, prefix), prefix)
    except NotDescribedError as error:
        lack = f"its routes cannot be described: {error}"
    except BaseException as error:  # noqa: BLE001 - types may bring code of their own
        lack = f"its routes cannot be described: {name_of(error)}"
    else:
        for each in fragment.lacks:
            log.info("%s: %s", owner, each)
        return fragment
    log.warning("%s: %s", owner, lack)
    return replace(_write(owner, bare(routes), prefix), lacks=(lack,), is_whole=False)


def _proven(fragment: Fragment, prefix: str) -> Fragment:
    """Return a fragment as plain JSON: what stands in a document is sent with all others'.

    What the plugin refers to itself is renamed as its components and operations are.

    Raises:
        NotDescribedError: it is no JSON, or refers to a component that is not there.
    """
    paths = {path: checked_json(item, path) for path, item in fragment.paths.items()}
    schemas = {n: checked_json(each, f"schema {n}") for n, each in fragment.schemas.items()}
    security = checked_json(fragment.security, "security")
    components = {
        "schemas": {**schemas, PROBLEM_NAME: {}},
        "responses": {PROBLEM_NAME: {}},
        "securitySchemes": security,
    }
    document = {"paths": paths, "components": components}
    ids = {m["operationId"] for item in paths.values() for m in _operations(item)}
    for where, each in (*paths.items(), *((f"schema {n}", s) for n, s in schemas.items())):
        if prefix:
            rename_own(each, prefix, schemas, ids)
        lost = lost_reference(each, document)
        if lost is not None:
            raise NotDescribedError(
                f"{where} refers to {lost}, which is not there; expected the model itself in "
                "`responses`, or a schema that needs no component"
            )
        drop_unfit_defaults(each, components["schemas"])
    return Fragment(paths, schemas, security, fragment.lacks)


def _operations(item: dict[str, Any]) -> list[dict[str, Any]]:
    return [item[method.lower()] for method in METHODS if method.lower() in item]


def bare(routes: Sequence[Route]) -> list[Route]:
    """Return routes of which no more is known than their endpoints."""
    return [Route(r.owner, r.template, None, None, r.endpoints, _NOTHING) for r in routes]


def _write(owner: str, routes: Sequence[Route], prefix: str) -> Fragment:
    schemas = Schemas(prefix)
    paths: dict[str, dict[str, Any]] = {}
    security: dict[str, Any] = {}
    described = {route.template: list(operations_of(route)) for route in routes}
    ids = _names([each for operations in described.values() for each in operations])
    for route in routes:
        operations = described[route.template]
        path = path_of(route.template)
        if not operations and not _is_below(route, described):
            paths.setdefault(path, {}).update(_elsewhere(route))
        for each in operations:
            operation = write_operation(
                each,
                prefix + ids[each.route.template, each.method],
                owner,
                schemas,
                errors=_errors_of(route),
            )
            paths.setdefault(path, {})[each.method.lower()] = operation
            for name, scheme in (each.options.security or {}).items():
                security[prefix + name] = dict(scheme)
    components = schemas.finish()
    kept = {p: item for p, item in paths.items() if item}
    return Fragment(kept, components, security, tuple(schemas.lacks))


def _errors_of(route: Route) -> Errors:
    if route.app is None:
        return "problems"
    return "own" if route.app.has_own_errors else "open"


def path_of(template: str) -> str:
    """Return a URI template as OpenAPI has it: without converters."""
    return FIELD_PATTERN.sub(r"{\g<fname>}", normal_path(template))


def _names(operations: list[Described]) -> dict[tuple[str, str], str]:
    """Return the name of each operation, by template and method: all different."""
    said = {each.options.operation_id for each in operations} - {""}
    names = [each.name for each in operations]
    taken: set[str] = set()
    found = {}
    for each in operations:
        name = each.options.operation_id or each.name
        if not each.options.operation_id and (not name or names.count(name) > 1 or name in said):
            name = default_id(each)
        number, one = 1, name
        while one in taken:
            number += 1
            one = f"{name}_{number}"
        taken.add(one)
        found[each.route.template, each.method] = one
    return found


def _is_below(route: Route, described: dict[str, Any]) -> bool:
    """Tell whether a route is the one below the prefix that another one answers."""
    base = route.template.removesuffix(_BELOW)
    return base != route.template and base in described


def _elsewhere(route: Route) -> dict[str, Any]:
    """Return the item of a path whose methods are not known: a mounted application, files."""
    mounted = route.operations.get("*")
    if mounted is None or not mounted.options.hidden:
        shown = next((each.handler for each in route.endpoints if each.method == "*"), "")
        if shown:
            options = mounted.options if mounted else None
            text = f"Answered by {shown}, with all below it."
            return {"description": (options and options.description) or text}
    return {}
