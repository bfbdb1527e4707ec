"""Core schemas of what all of a form becomes: its parts are texts, as no part of JSON has to be."""

import enum
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from app.loading.core_schemas import choices_of, schemas_in, with_keys
from app.loading.field_types import choice_text

_Named = Mapping[str, dict[str, Any]]
"""Schemas by the names that others refer to them by."""

_OBJECTS = frozenset(("model", "dataclass", "typed-dict", "dict"))
_LISTS = frozenset(("list", "tuple", "set", "frozenset"))
_AROUND = frozenset(("definitions", "function-after", "nullable", "default"))
"""The core schemas of values that another one within them makes."""


def textual_schema(schema: Any) -> Any:
    """Return a core schema by which texts become values as those of a form's single fields do.

    Whole numbers among choices are told from their digits, and nothing is strict: a text is never
    of another type. What is within a `Json` is no text.
    """
    return with_keys(schema, _of_text, closed=frozenset(("json",)))


def unfit_field(schema: Any) -> str | None:
    """Return a field that an object must have and that no text becomes, None if there is none.

    Args:
        schema: the core schema of the object.
    """
    named = {part["ref"]: part for part in schemas_in(schema) if "ref" in part}
    owners = list(_innermost(schema, named))
    if len(owners) != 1:
        return None
    needed = _needed_fields(owners[0])
    return next((name for name, each in needed if _is_no_text(each, named)), None)


def _of_text(schema: dict[str, Any], _config: dict[str, Any]) -> dict[str, Any]:
    more: dict[str, Any] = {"strict": False} if schema.get("strict") else {}
    config = schema.get("config") or {}
    if config.get("strict"):
        more["config"] = {**config, "strict": False}
    choices = {"literal": "expected", "enum": "members"}.get(schema["type"])
    if choices is None:
        return more
    values = schema[choices]
    texts = {_plain(value) for value in values if isinstance(_plain(value), str)}
    found = [(choice_text(value), value) for value in values]
    known = {text: value for text, value in found if text is not None and text not in texts}
    if not known:
        return more
    function = {"type": "no-info", "function": functools.partial(_chosen, known)}
    inner = {key: value for key, value in schema.items() if key != "ref"} | more
    return {**more, "type": "function-before", "function": function, "schema": inner}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _chosen(known: Mapping[str, Any], found: Any) -> Any:
    return known.get(found, found) if type(found) is str else found


def _innermost(
    schema: dict[str, Any], named: _Named, within: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the schemas that make the values of one, each a way to make it."""
    kind = schema["type"]
    if kind == "definition-ref":
        name = schema["schema_ref"]
        if name not in within:
            yield from _innermost(named[name], named, (*within, name))
    elif kind in _AROUND or (kind == "model" and schema.get("root_model")):
        yield from _innermost(schema["schema"], named, within)
    elif kind == "chain":
        yield from _innermost(schema["steps"][0], named, within)
    elif kind == "union":
        for choice in choices_of(schema):
            yield from _innermost(choice, named, within)
    else:
        yield schema


def _needed_fields(owner: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the fields without which there is no object, as far as no code of a plugin makes them.

    A validator that comes before has all of the form, and may make them.
    """
    if owner["type"] in ("model", "dataclass"):
        owner = owner["schema"]
        while owner["type"] == "function-after":
            owner = owner["schema"]
    if owner["type"] not in ("model-fields", "dataclass-args", "typed-dict"):
        return
    fields = owner["fields"]
    listed = [(f["name"], f) for f in fields] if type(fields) is list else list(fields.items())
    for name, field in listed:
        is_given = field.get("init", True) and field.get("required", True)
        if is_given and field["schema"]["type"] != "default":
            yield name, field["schema"]


def _is_no_text(schema: dict[str, Any], named: _Named, *, in_list: bool = False) -> bool:
    """Tell whether no text becomes a value of a schema, nor do several where several may come."""
    kinds = list(_innermost(schema, named))
    return bool(kinds) and all(
        each["type"] in _OBJECTS
        or (
            each["type"] in _LISTS
            and (in_list or any(_is_no_text(i, named, in_list=True) for i in _items(each)))
        )
        for each in kinds
    )


def _items(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = schema.get("items_schema", [])
    return found if type(found) is list else [found]
