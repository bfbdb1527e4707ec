"""One method of a route as an operation of OpenAPI."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from app.admin.openapi.docstrings import Docstring, read_docstring
from app.admin.openapi.parameters import body_of, parameters_of
from app.admin.openapi.responses import Errors, declared, responses_of
from app.admin.openapi.schemas import Schemas
from app.loading.handler_signature import HandlerSignature
from app.loading.method_maps import responders_of
from app.loading.route_options import NONE, RouteOptions
from app.loading.routes import Route
from app.loading.signatures import describe, innermost
from app.uri_templates import FIELD_PATTERN

METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")
"""The methods that OpenAPI knows."""

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESPONDER = re.compile(r"on_(get|put|post|delete|options|head|patch|trace)")


@dataclass(frozen=True, slots=True)
class Described:
    """A method of a route: what answers it, as far as it is known here."""

    route: Route
    method: str
    handler: Any
    options: RouteOptions = NONE
    signature: HandlerSignature | None = None

    @property
    def name(self) -> str:
        """The handler's name, empty where it says nothing."""
        shown = self._shown().rpartition(".")[2]
        said = _PLAIN_NAME.fullmatch(shown) is not None and not _RESPONDER.match(shown)
        return shown if said else ""

    def _shown(self) -> str:
        if self.handler is not None:
            return describe(self.handler)
        endpoints = {each.method: each.handler for each in self.route.endpoints}
        return endpoints.get(self.method, "")


def operations_of(route: Route) -> Iterator[Described]:
    """Give the methods that a route answers and OpenAPI knows, but those that are hidden."""
    if route.operations:
        for method, operation in route.operations.items():
            if method in METHODS and not operation.options.hidden:
                signature = route.signatures.get(method)
                yield Described(route, method, operation.answers, operation.options, signature)
        return
    responders = responders_of(route.resource, route.suffix) if route.resource else {}
    known = responders or dict.fromkeys(each.method for each in route.endpoints)
    for method, responder in known.items():
        if method in METHODS:
            yield Described(route, method, responder)


def write_operation(
    described: Described,
    operation_id: str,
    tag: str,
    schemas: Schemas,
    *,
    errors: Errors = "problems",
) -> dict[str, Any]:
    """Return an operation of OpenAPI.

    Args:
        described: the method of the route.
        operation_id: its name.
        tag: under which it stands if it does not say so itself.
        schemas: writes the plugin's schemas.
        errors: how its errors look.
    """
    options, signature = described.options, described.signature
    docstring = Docstring() if described.handler is None else _docstring(described.handler)
    name = described.name.strip("_").replace("_", " ")
    operation: dict[str, Any] = {
        "tags": list(options.tags) or [tag],
        "summary": options.summary or docstring.summary or name[:1].upper() + name[1:],
        "description": options.description or docstring.description,
        "operationId": operation_id,
        "parameters": parameters_of(
            described.route.template, signature, schemas, docstring.parameters
        ),
    }
    if signature is None:
        found = {"description": docstring.returns or "What it answers."}
        operation["responses"] = {"default": found, **declared(options, schemas)}
    else:
        body = body_of(signature, schemas, docstring.parameters)
        if body is not None:
            operation["requestBody"] = body
        operation["responses"] = responses_of(
            signature, options, schemas, returns=docstring.returns, errors=errors
        )
    if options.deprecated:
        operation["deprecated"] = True
    if options.security is not None:
        # Of several one is enough; none at all says that everybody may call.
        operation["security"] = [{schemas.prefix + name: []} for name in options.security]
    return {key: value for key, value in operation.items() if value or key == "security"}


def _docstring(handler: Any) -> Docstring:
    return read_docstring(innermost(handler))


def default_id(described: Described) -> str:
    """Return an operation's name where none is given and its handler has none of its own."""
    path = FIELD_PATTERN.sub(r"\g<fname>", described.route.template)
    path = re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_")
    return f"{described.method.lower()}_{path}".rstrip("_")
