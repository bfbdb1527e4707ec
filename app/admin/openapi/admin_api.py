"""The server's own routes as a document has them: what each takes and answers."""

from collections.abc import Sequence
from typing import Any

from app.admin.openapi.fragment import Fragment
from app.admin.openapi.operation import default_id, operations_of, write_operation
from app.admin.openapi.responses import ANY_PROBLEM, json_response, problem
from app.admin.openapi.schemas import Schema, Schemas
from app.loading.routes import Route
from app.records import NAME_PATTERN
from app.routing.server_routes import (
    LIVE,
    OPENAPI,
    PLUGIN,
    PLUGIN_OPENAPI,
    PLUGINS,
    READY,
    RELOAD,
    TOGGLE,
    WORKERS,
)

ADMIN_TAG = "Benana"
"""Under which the server's own routes stand, and what the names of their components begin with."""

TOKEN = f"{ADMIN_TAG}.token"
"""The security scheme of the admin API."""


def _object(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
    }


def _array(items: Schema, text: str = "") -> Schema:
    return {"type": "array", "items": items, **({"description": text} if text else {})}


def _of(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{ADMIN_TAG}.{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT: Schema = {"type": "string"}
_TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
_WHOLE: Schema = {"type": "integer"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_HOST = {"host": _TEXT, "pid": _WHOLE}

_STATUS: Schema = {"type": "string", "enum": ["active", "inactive"]}
_ENDPOINT = _object({"method": _TEXT, "path": _TEXT, "handler": _TEXT})
_RELOAD = _object({"how": _TEXT, "why": _TEXT_OR_NULL, "advice": _TEXT_OR_NULL})

SCHEMAS: dict[str, Schema] = {
    "Error": _object(
        {
            "phase": _TEXT,
            "message": _TEXT,
            "file": _TEXT_OR_NULL,
            "line": {"type": ["integer", "null"]},
        }
    ),
    "Reason": _object(
        {"plugin": _TEXT_OR_NULL, "what": _TEXT},
        since=_TIME,
        degrades={"type": "boolean"},
        host=_TEXT,
        pid=_WHOLE,
    ),
    "Load": _object(
        {**_HOST, "generation": {"type": ["integer", "null"]}}, error=_or_null(_of("Error"))
    ),
    "Convergence": _object(
        {"total": _WHOLE, "current": _WHOLE, "behind": _array(_of("Load"))},
        owners=_array(_of("Load")),
    ),
    "Plugin": _object(
        {
            "id": {"type": "string", "format": "uuid"},
            "name": {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$"},
            "description": _TEXT_OR_NULL,
            "version": _TEXT_OR_NULL,
            "author": _TEXT_OR_NULL,
            "type": _TEXT,
            "status": _STATUS,
            "source_path": _TEXT_OR_NULL,
            "binary_path": _TEXT_OR_NULL,
            "created_at": _TIME,
            "updated_at": _TIME,
            "generation": _WHOLE,
            "error": _or_null(_of("Error")),
            "reload": _RELOAD,
            "endpoints": _array(_ENDPOINT),
        },
        workers=_of("Convergence"),
        reasons=_array(_of("Reason")),
    ),
    "Failure": _object(
        {
            "name": _TEXT,
            "status": {"const": "failed"},
            "source_path": _TEXT_OR_NULL,
            "updated_at": _TIME,
            "error": _of("Error"),
        }
    ),
    "Change": _object(
        {"message": _TEXT, "plugin": _TEXT, "status": _TEXT},
        note=_TEXT,
        generation=_WHOLE,
        seconds={"type": "number"},
        workers=_of("Convergence"),
    ),
    "Worker": _object(
        {
            "id": _TEXT,
            **_HOST,
            "generations_alive": _WHOLE,
            "started_at": _TIME,
            "heartbeat_at": _TIME,
            "status": _TEXT_OR_NULL,
            "reasons": _array(_of("Reason")),
            "owns": _array(_TEXT),
        }
    ),
    "Health": _object({"status": _TEXT}, reason_count=_WHOLE, reasons=_array(_of("Reason"))),
}

_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The plugin's name.",
}
_WAIT = {
    "name": "wait",
    "in": "query",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 60},
    "description": "Answer once all workers follow: seconds, at most.",
}
_WHICH = {
    "name": "status",
    "in": "query",
    "schema": {"type": "string", "enum": ["active", "inactive", "failed"]},
    "description": "Only those; `failed` are folders that are no valid plugin.",
}
_MISSING = problem("There is no such plugin, or its folder is none; `error` says why.")
_LATE = problem("Not all workers follow in time, or they cannot.")
_CHANGED = json_response("It is done.", _of("Change"))
_DOCUMENT = json_response("The document.", {"type": "object"})
_UNCHANGED = {"description": "It is the one that was sent before (`If-None-Match`)."}
_SINCE = {"name": "If-None-Match", "in": "header", "schema": _TEXT}

_SAID: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", PLUGINS): {
        "parameters": [_WHICH],
        "responses": {
            "200": json_response(
                "The plugins.", _array({"anyOf": [_of("Plugin"), _of("Failure")]})
            ),
            "400": problem("There is no such status."),
        },
    },
    ("GET", PLUGIN): {
        "parameters": [_NAME],
        "responses": {"200": json_response("The plugin.", _of("Plugin")), "404": _MISSING},
    },
    ("POST", RELOAD): {
        "parameters": [_NAME, _WAIT],
        "responses": {
            "200": json_response("All workers follow.", _of("Change")),
            "202": _CHANGED,
            "404": _MISSING,
            "422": problem("It cannot be published; the old version serves on."),
            "504": _LATE,
        },
    },
    ("POST", TOGGLE): {
        "parameters": [_NAME, _WAIT],
        "responses": {"200": _CHANGED, "404": _MISSING, "504": _LATE},
    },
    ("GET", WORKERS): {"responses": {"200": json_response("The workers.", _array(_of("Worker")))}},
    ("GET", LIVE): {"responses": {"200": json_response("It answers.", _object({"status": _TEXT}))}},
    ("GET", READY): {
        "responses": {
            "200": json_response("It serves what is registered.", _of("Health")),
            "503": problem("It does not serve yet, or nothing."),
        }
    },
    ("GET", OPENAPI): {
        "parameters": [_SINCE],
        "responses": {"200": _DOCUMENT, "304": _UNCHANGED},
    },
    ("GET", PLUGIN_OPENAPI): {
        "parameters": [_NAME, _SINCE],
        "responses": {"200": _DOCUMENT, "304": _UNCHANGED, "404": problem("It is not served.")},
    },
}


def admin_fragment(routes: Sequence[Route], *, has_token: bool) -> Fragment:
    """Describe the server's own routes.

    Args:
        routes: the routes.
        has_token: whether they ask for the admin token.
    """
    paths: dict[str, dict[str, Any]] = {}
    schemas = Schemas(f"{ADMIN_TAG}.")
    for route in routes:
        for each in operations_of(route):
            said = _SAID.get((each.method, route.template))
            if said is None:
                continue  # what only a person reads: pages, and their files
            operation = write_operation(each, f"{ADMIN_TAG}.{default_id(each)}", ADMIN_TAG, schemas)
            operation |= said
            operation["responses"] = {**said["responses"], "default": ANY_PROBLEM}
            if has_token:
                # Health and documents are open, and say more with it.
                is_open = route.template in (LIVE, READY, OPENAPI, PLUGIN_OPENAPI)
                operation["security"] = [{TOKEN: []}, *([{}] if is_open else [])]
            paths.setdefault(route.template, {})[each.method.lower()] = operation
    token = {"type": "http", "scheme": "bearer", "description": "BENANA_ADMIN_TOKEN"}
    named = {f"{ADMIN_TAG}.{name}": schema for name, schema in SCHEMAS.items()}
    return Fragment(paths, named, {TOKEN: token} if has_token else {})
