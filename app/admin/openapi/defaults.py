"""Defaults that their own schema does not allow: with one, no validator takes the document.

A plugin may have them: `limit: Annotated[int, Ge(1)] = 0` says "no limit", and pydantic checks no
default. They are left out of the document.
"""

import math
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from app.admin.openapi.references import objects_in
from app.loading.openapi_objects import is_number

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: is_number(value) and value == math.floor(value),
    "number": is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
_BOUNDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "minimum": lambda value, bound: not is_number(value) or value >= bound,
    "maximum": lambda value, bound: not is_number(value) or value <= bound,
    "exclusiveMinimum": lambda value, bound: not is_number(value) or value > bound,
    "exclusiveMaximum": lambda value, bound: not is_number(value) or value < bound,
    "minLength": lambda value, bound: not isinstance(value, str) or len(value) >= bound,
    "maxLength": lambda value, bound: not isinstance(value, str) or len(value) <= bound,
    "minItems": lambda value, bound: not isinstance(value, list) or len(value) >= bound,
    "maxItems": lambda value, bound: not isinstance(value, list) or len(value) <= bound,
    "minProperties": lambda value, bound: not isinstance(value, dict) or len(value) >= bound,
    "maxProperties": lambda value, bound: not isinstance(value, dict) or len(value) <= bound,
    "required": lambda value, names: not isinstance(value, dict) or value.keys() >= set(names),
    "pattern": lambda value, pattern: not isinstance(value, str) or _matches(value, pattern),
    "format": lambda value, name: not isinstance(value, str) or _has_format(value, name),
    "enum": lambda value, allowed: any(_is_same(value, each) for each in allowed),
    "const": lambda value, allowed: _is_same(value, allowed),
}
"""What a keyword allows, of those that say something of a value alone."""

_DATE = r"\d{4}-\d\d-\d\d"
_TIME = r"\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"
_FORMATS = {
    "date": re.compile(_DATE, re.ASCII),
    "time": re.compile(_TIME, re.ASCII),
    "date-time": re.compile(f"{_DATE}[Tt]{_TIME}", re.ASCII),
}


def drop_unfit_defaults(part: Any, components: Mapping[str, Any]) -> None:
    """Remove each default within a part of a document that its own schema does not allow.

    Args:
        part: the part, as plain JSON; it is changed.
        components: the schemas that it may refer to, by name.
    """
    for item in objects_in(part):
        if "default" in item and not _fits(item["default"], item, components):
            del item["default"]


def _fits(value: Any, schema: Any, components: Mapping[str, Any], depth: int = 0) -> bool:
    """Tell whether a schema allows a value, as far as it is known here."""
    if not isinstance(schema, dict) or depth > len(components) + 50:
        return schema is not False
    types = schema.get("type", [])
    types = types if isinstance(types, list) else [types]
    if types and not any(_TYPES.get(name, bool)(value) for name in types):
        return False
    if not all(allows(value, schema[key]) for key, allows in _BOUNDS.items() if key in schema):
        return False

    def fits(each: Any, inner: Any) -> bool:
        return _fits(each, inner, components, depth + 1)

    name = schema.get("$ref", "").rpartition("/")[2]
    if name in components and not fits(value, components[name]):
        return False
    if not all(fits(value, each) for each in schema.get("allOf", ())):
        return False
    for key in ("anyOf", "oneOf"):
        if key in schema and not any(fits(value, each) for each in schema[key]):
            return False
    return all(fits(each, inner) for each, inner in _inner(value, schema))


def _inner(value: Any, schema: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Return what is in a value, each with its schema."""
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        rest = [(each, schema.get("items", True)) for each in value[len(first) :]]
        return [*zip(value, first, strict=False), *rest]
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        return [(each, known.get(name, other)) for name, each in value.items()]
    return []


def _is_same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _matches(value: str, pattern: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:  # one that Python does not read
        return True


def _has_format(value: str, name: str) -> bool:
    if name == "uuid":
        try:
            return str(uuid.UUID(value)) == value.lower()
        except ValueError:
            return False
    return name not in _FORMATS or _FORMATS[name].fullmatch(value) is not None
