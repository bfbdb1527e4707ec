"""What OpenAPI 3.1 allows where a plugin writes a part of its document itself.

One member that is not allowed makes all of a document invalid.
"""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_Members = Mapping[str, str]

_URLS = ("authorizationUrl", "tokenUrl", "refreshUrl")
_FLOWS: Mapping[str, Sequence[str]] = {
    "implicit": ("authorizationUrl",),
    "password": ("tokenUrl",),
    "clientCredentials": ("tokenUrl",),
    "authorizationCode": ("authorizationUrl", "tokenUrl"),
}
"""The flows of OAuth 2, and the addresses that each needs."""

_OBJECTS: Mapping[str, _Members] = {
    "response": {
        "description": "text",
        "headers": "{header}",
        "content": "{media type}",
        "links": "{link}",
    },
    "media type": {
        "schema": "schema",
        "example": "anything",
        "examples": "{example}",
        "encoding": "{encoding}",
    },
    "header": {
        "description": "text",
        "required": "truth",
        "deprecated": "truth",
        "schema": "schema",
        "content": "{media type}",
        "style": "simple",
        "explode": "truth",
        "example": "anything",
        "examples": "{example}",
    },
    "example": {
        "summary": "text",
        "description": "text",
        "value": "anything",
        "externalValue": "text",
    },
    "encoding": {
        "contentType": "text",
        "headers": "{header}",
        "style": "style",
        "explode": "truth",
        "allowReserved": "truth",
    },
    "link": {
        "operationRef": "text",
        "operationId": "text",
        "parameters": "{anything}",
        "requestBody": "anything",
        "description": "text",
    },
    "discriminator": {"propertyName": "text", "mapping": "{text}"},
    "external documentation": {"url": "text", "description": "text"},
    "xml": {
        **dict.fromkeys(("name", "namespace", "prefix"), "text"),
        **dict.fromkeys(("attribute", "wrapped"), "truth"),
    },
    "security scheme": {
        "type": "text",
        "description": "text",
        "name": "text",
        "in": "text",
        "scheme": "text",
        "bearerFormat": "text",
        "flows": "flows",
        "openIdConnectUrl": "text",
    },
    "flows": {name: f"{name} flow" for name in _FLOWS},
    **{f"{name} flow": {**dict.fromkeys(_URLS, "text"), "scopes": "{text}"} for name in _FLOWS},
}
"""The members of its objects, by name, and what they are; `{…}` is an object of such by name."""

_OF_SCHEMA: _Members = {
    **dict.fromkeys(("title", "description", "format", "pattern", "$ref", "$id"), "text"),
    **dict.fromkeys(("$comment", "$anchor", "contentMediaType", "contentEncoding"), "text"),
    **dict.fromkeys(("properties", "patternProperties", "$defs", "dependentSchemas"), "{schema}"),
    **dict.fromkeys(("items", "additionalProperties", "propertyNames", "contains"), "schema"),
    **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties", "contentSchema"), "schema"),
    **dict.fromkeys(("not", "if", "then", "else"), "schema"),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), "[schema]"),
    **dict.fromkeys(("deprecated", "readOnly", "writeOnly", "uniqueItems"), "truth"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "number"),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), "count"),
    **dict.fromkeys(("minProperties", "maxProperties", "minContains", "maxContains"), "count"),
    "type": "type",
    "required": "names",
    "dependentRequired": "{names}",
    "discriminator": "discriminator",
    "externalDocs": "external documentation",
    "xml": "xml",
    "enum": "[anything]",
    "examples": "[anything]",
    "multipleOf": "positive",
}
"""The keywords of a JSON Schema; it may have others."""

_TYPES = frozenset(("string", "number", "integer", "boolean", "array", "object", "null"))

_REFERENCE: _Members = {"$ref": "text", "summary": "text", "description": "text"}
_REFERRING = frozenset(("response", "header", "example", "link"))
"""The objects in whose place a reference to one may stand."""

_NEEDED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "header": (("schema", "content"),),
    "link": (("operationRef", "operationId"),),
    "discriminator": (("propertyName",),),
    "external documentation": (("url",),),
    **{f"{n} flow": (*((u,) for u in urls), ("scopes",)) for n, urls in _FLOWS.items()},
}
"""Of which members an object has one."""

_OF_SCHEME: Mapping[str, tuple[str, ...]] = {
    "apiKey": ("name", "in"),
    "http": ("scheme",),
    "mutualTLS": (),
    "oauth2": ("flows",),
    "openIdConnect": ("openIdConnectUrl",),
}
"""The types of security schemes, and what each has."""


def is_number(value: Any) -> bool:
    """Tell whether a value is a number of JSON."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_type(value: Any) -> bool:
    named = value if isinstance(value, list | tuple) else [value]
    return bool(named) and _are_names(named) and _TYPES.issuperset(named)


def _are_names(value: Any) -> bool:
    """Tell whether a value is a list of texts, no two alike."""
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        return False
    return len(set(value)) == len(value)


_STYLES = ("form", "spaceDelimited", "pipeDelimited", "deepObject")

_PLAIN: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("text", lambda value: isinstance(value, str)),
    "truth": ("True or False", lambda value: isinstance(value, bool)),
    "number": ("a number", is_number),
    "positive": ("a number above 0", lambda value: is_number(value) and value > 0),
    "count": ("a count", lambda value: is_number(value) and value >= 0 and value == int(value)),
    "type": (f"one of {', '.join(sorted(_TYPES))}, or a list of them", _is_type),
    "names": ("a list of texts, no two alike", _are_names),
    "simple": ("'simple'", lambda value: value == "simple"),
    "style": (f"one of {', '.join(_STYLES)}", lambda value: value in _STYLES),
}
"""What values may be, and how to tell."""


def object_fault(value: Any, kind: str, where: str = "") -> str | None:
    """Return what is not as OpenAPI has it, None if all is.

    Args:
        value: what the plugin says.
        kind: which object of OpenAPI it is to be, as `response`.
        where: the way to it from what the plugin says.
    """
    if kind == "anything":
        return None
    if kind in _PLAIN:
        expected, fits = _PLAIN[kind]
        return None if fits(value) else _said(where, value, expected)
    if kind.startswith("["):
        return _list_fault(value, kind[1:-1], where)
    if kind.startswith("{"):
        return _map_fault(value, kind[1:-1], where)
    if kind == "schema" and isinstance(value, bool):
        return None
    if not isinstance(value, Mapping):
        advice = "; a type stands beside a text: (text, type)" if kind == "schema" else ""
        return _said(where, value, f"an object that is a {kind}{advice}")
    known = _REFERENCE if kind in _REFERRING and "$ref" in value else _OBJECTS.get(kind, _OF_SCHEMA)
    for name, member in value.items():
        if name in known:
            if fault := object_fault(member, known[name], _below(where, name)):
                return fault
        elif kind != "schema" and not str(name).startswith("x-"):
            advice = "; a type stands beside a text: (text, type)" if name == "model" else ""
            return f"{_below(where, name)} is unknown, expected {', '.join(known)}{advice}"
    return None if known is _REFERENCE else _lack(value, kind, where)


def valid_schema(schema: Any, where: str, faults: list[str]) -> Any:
    """Return a JSON Schema without the members that are not as it has them.

    Args:
        schema: the schema.
        where: whose it is.
        faults: what is left out is added to it, a sentence each.
    """
    if not isinstance(schema, Mapping):
        return schema
    found = {}
    for name, member in schema.items():
        kind, below = _OF_SCHEMA.get(name, "anything"), _below(where, name)
        if kind == "schema":
            member = valid_schema(member, below, faults)
        elif kind == "{schema}" and isinstance(member, Mapping):
            member = {n: valid_schema(m, _below(below, n), faults) for n, m in member.items()}
        elif kind == "[schema]" and isinstance(member, list):
            member = [valid_schema(m, f"{below}[{n}]", faults) for n, m in enumerate(member)]
        if fault := object_fault(member, kind, below):
            faults.append(f"{fault}; it is left out")
        else:
            found[name] = member
    return found


def scheme_fault(scheme: Mapping[str, Any]) -> str | None:
    """Return what of a security scheme is not as OpenAPI has it, None if all is."""
    if (fault := object_fault(scheme, "security scheme")) is not None:
        return fault
    needed = _OF_SCHEME.get(scheme["type"])
    if needed is None:
        return _said("type", scheme["type"], f"one of {', '.join(_OF_SCHEME)}")
    missing = [name for name in needed if name not in scheme]
    if missing:
        return f"{missing[0]} is missing, expected it with the type {scheme['type']}"
    if scheme["type"] == "apiKey" and scheme["in"] not in ("query", "header", "cookie"):
        return _said("in", scheme["in"], "query, header or cookie")
    return None


def _list_fault(value: Any, kind: str, where: str) -> str | None:
    if not isinstance(value, list | tuple):
        return _said(where, value, "a list")
    if kind == "schema" and not value:
        return _said(where, value, "one schema at least")
    faults = (object_fault(item, kind, f"{where}[{n}]") for n, item in enumerate(value))
    return next(filter(None, faults), None)


def _map_fault(value: Any, kind: str, where: str) -> str | None:
    if not isinstance(value, Mapping):
        return _said(where, value, f"an object with a {kind} for each name")
    for name, item in value.items():
        if not isinstance(name, str):
            return _said(where, value, "text as its names")
        if kind == "media type" and "/" not in name:
            return _said(where, value, "media types as its names, as application/json")
        if fault := object_fault(item, kind, _below(where, name)):
            return fault
    return None


def _lack(value: Mapping[str, Any], kind: str, where: str) -> str | None:
    """Return which members an object lacks, or has too many of."""
    for names in _NEEDED.get(kind, ()):
        if sum(name in value for name in names) != 1:
            return _said(where, value, f"one of {' and '.join(names)}" if names[1:] else names[0])
    if kind == "example" and "value" in value and "externalValue" in value:
        return _said(where, value, "one of value and externalValue")
    if kind == "header" and len(value.get("content", [1])) != 1:
        return _said(f"{where}.content", value["content"], "one media type")
    return None


def _below(where: str, name: Any) -> str:
    return f"{where}.{name}" if where else str(name)


def _said(where: str, value: Any, expected: str) -> str:
    shown = reprlib.repr(value)
    return f"{where} is {shown}, expected {expected}" if where else f"{shown}, expected {expected}"
