"""What an operation takes: its parameters and its body, as OpenAPI has them."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import falcon

from app.admin.openapi.schemas import Schema, Schemas, Use, is_naive, without_markers
from app.loading.annotations import is_bare, members
from app.loading.constraints import is_constrained
from app.loading.form_values import files_of, is_file
from app.loading.handler_signature import HandlerParameter, HandlerSignature
from app.loading.strict_json import as_plain_json
from app.uri_templates import FIELD_PATTERN

_BY_CONVERTER: dict[str, Schema] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "uuid": {"type": "string", "format": "uuid"},
    "dt": {"type": "string", "format": "date-time"},
    "path": {"type": "string", "description": "Whatever is left of the path, slashes included."},
}


def path_fields(template: str) -> dict[str, Schema]:
    """Return the fields of a URI template, each with the schema that its converter stands for."""
    return {
        field["fname"]: (
            {"type": "string", "description": f"A time as strptime reads it: {field['argstr']}."}
            if _is_own_time(field)
            else dict(_BY_CONVERTER.get(field["cname"] or "", {"type": "string"}))
        )
        for field in FIELD_PATTERN.finditer(template)
    }


def _is_own_time(field: re.Match[str]) -> bool:
    """Tell whether a field is a time in a format of the plugin's own."""
    return field["cname"] == "dt" and bool((field["argstr"] or "").strip())


def parameters_of(
    template: str,
    signature: HandlerSignature | None,
    schemas: Schemas,
    said: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Return the parameters of an operation.

    Args:
        template: the route's URI template.
        signature: what its handler takes, None if it is a Falcon responder.
        schemas: writes the plugin's schemas.
        said: what the docstring says of each parameter, by name.
    """
    taken = {p.parameter: p for p in (signature.parameters if signature else ())}
    found = []
    own_times = {each["fname"] for each in FIELD_PATTERN.finditer(template) if _is_own_time(each)}
    for name, schema in path_fields(template).items():
        of_handler = None if name in own_times else taken.get(name)
        if (of_handler is not None and of_handler.kind == "path") and (
            schema == {"type": "string"} or is_constrained(of_handler.annotation)
        ):
            schema = _schema_of(of_handler, schemas)
        parameter = {"name": name, "in": "path", "required": True, "schema": schema}
        found.append(_described(parameter, said.get(name, "")))
    listed = set()
    for each in taken.values():
        if each.kind in ("query", "header", "cookie"):
            name = each.name.lower() if each.kind == "header" else each.name
            if (each.kind, name) in listed:  # two parameters of the handler take the same value
                continue
            listed.add((each.kind, name))
            parameter = {"name": each.name, "in": each.kind, "schema": _schema_of(each, schemas)}
            if each.required:
                parameter["required"] = True
            found.append(_described(parameter, said.get(each.parameter) or _text_of(each)))
    return found


def body_of(
    signature: HandlerSignature, schemas: Schemas, said: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the body that an operation takes, None if it takes none."""
    for parameter in signature.parameters:
        if parameter.kind == "body":
            kinds = [k for k in members(parameter.annotation) if k is not type(None)]
            if kinds == [bytes]:
                content: dict[str, Any] = {"*/*": {}}
            else:
                schema = schemas.of(parameter.annotation, "body")
                content = {falcon.MEDIA_JSON: {"schema": schema}}
            needed = parameter.required and len(kinds) == len(members(parameter.annotation))
            needed = needed and kinds != [bytes]
            return _described({"required": needed, "content": content}, said.get("body", ""))
    return _form_of([p for p in signature.parameters if p.kind == "form"], schemas, said)


def _form_of(
    parameters: Sequence[HandlerParameter], schemas: Schemas, said: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the form that an operation takes, None if it takes none."""
    if not parameters:
        return None
    properties, required = {}, []
    wholes = []
    use: Use = "rest" if any(each.name for each in parameters) else "form"
    for each in parameters:
        if each.name:
            schema = _schema_of(each, schemas)
            text = said.get(each.parameter) or _text_of(each)
            properties[each.name] = {"allOf": [schema], "description": text} if text else schema
            required += [each.name] if each.required and each.name not in required else []
        else:  # the rest of the form is one value
            wholes.append(schemas.of(without_markers(each.annotation), use))
    parts = [{"type": "object", "properties": properties, "required": required}]
    parts = [*wholes, *(parts if properties else ())]
    schema = parts[0] if len(parts) == 1 else {"allOf": parts}
    files = any(
        is_file(p.annotation) or (not p.name and files_of(p.annotation)) for p in parameters
    )
    types = (
        (falcon.MEDIA_MULTIPART,) if files else (falcon.MEDIA_URLENCODED, falcon.MEDIA_MULTIPART)
    )
    return {
        "required": any(each.required for each in parameters),
        "content": {media_type: {"schema": schema} for media_type in types},
    }


def _described(item: dict[str, Any], text: str) -> dict[str, Any]:
    return {**item, "description": text} if text else item


def _schema_of(parameter: HandlerParameter, schemas: Schemas) -> Schema:
    """Return the schema of a text; its default is in it, where JSON has it."""
    annotation, default = parameter.annotation, parameter.default
    if is_bare(annotation) and default is not inspect.Parameter.empty:
        annotation = str if default is None else type(default)
    if is_bare(annotation):
        return {"type": "string"}
    schema = schemas.of(annotation, "text")
    shown = _shown_default(default)
    if shown is None or not _is_of_type(shown, schema.get("type")):
        return schema
    return (
        {"allOf": [schema], "default": shown} if _is_open(schema) else {**schema, "default": shown}
    )


def _is_open(schema: Schema) -> bool:
    """Tell whether a schema is to be filled in later, or refers to a component."""
    return not schema or "$ref" in schema


def _shown_default(default: Any) -> Any:
    if default is inspect.Parameter.empty or default is None or is_naive(default):
        return None
    try:
        return as_plain_json(default)
    except (TypeError, ValueError):
        return None


def _is_of_type(shown: Any, name: Any) -> bool:
    """Tell whether a default is of a JSON type, or of one of several, as a schema's `type` has it.

    A document with another one would be invalid.
    """
    if isinstance(name, list):
        return any(_is_of_type(shown, each) for each in name)
    if type(shown) is bool:
        return name in ("boolean", None)
    return name not in _PYTHON or isinstance(shown, _PYTHON[name])


_PYTHON: dict[Any, Any] = {
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "string": str,
    "array": list,
    "object": dict,
}
"""What values of a JSON type are in Python."""


def _text_of(parameter: HandlerParameter) -> str:
    """Return the text that an `Annotated` has beside the type, as a description."""
    extras = getattr(parameter.annotation, "__metadata__", ())
    return next((extra for extra in extras if isinstance(extra, str)), "")
