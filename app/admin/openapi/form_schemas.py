"""The schema of all of a form: as JSON has its type, but for what no part of a form can be."""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

_NULL: Schema = {"type": "null"}
_CHOICES = ("anyOf", "oneOf", "allOf")


def of_form(schema: Schema, components: Mapping[str, Schema], *, alone: bool) -> Schema:
    """Return what a form may hold: a field without a value is left out of it, and never null.

    It is the schema itself where that says no more.

    Args:
        schema: what JSON of the same type is, or a reference to a component.
        components: the components.
        alone: whether it takes all of the form: it says nothing of fields that others take.
    """
    found = _without_null(schema)
    name = found.get("$ref", "").rpartition("/")[2]
    if name in components:
        followed = of_form(components[name], components, alone=alone)
        return found if followed == components[name] else followed
    for key in _CHOICES:
        if key in found:
            found[key] = [of_form(each, components, alone=alone) for each in found[key]]
    if not alone and found.get("additionalProperties") is False:
        del found["additionalProperties"]
    if "properties" in found:
        found["properties"] = {n: _of_field(each) for n, each in found["properties"].items()}
    return found


def _of_field(schema: Any) -> Any:
    found = _without_null(schema)
    if isinstance(found.get("items"), dict):
        found["items"] = _without_null(found["items"])
    return found


def _without_null(schema: Schema) -> Schema:
    found = dict(schema)
    if "default" in found and found["default"] is None:
        del found["default"]
    if "enum" in found:
        found["enum"] = [each for each in found["enum"] if each is not None]
    choices = [each for each in found.get("anyOf", ()) if each != _NULL]
    if len(choices) == 1:
        del found["anyOf"]
        return {**_without_null(choices[0]), **found}
    return {**found, "anyOf": choices} if choices else found
