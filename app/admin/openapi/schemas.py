"""The JSON Schemas of a plugin's annotations, and the components that they refer to.

Plain types are written here. What only pydantic knows is left to it, all of a plugin's at once,
because it names the components; it was imported then with the plugin's own handlers.
"""

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import re
import sys
import types
import typing
import uuid
from collections.abc import Sequence
from typing import Any, Literal

from app.admin.openapi.form_schemas import of_form
from app.inspection import module_of, name_of
from app.loading.annotations import holds_itself, is_bare, members, without_qualifiers
from app.loading.constraints import is_constrained, is_json
from app.loading.field_types import MANY
from app.loading.markers import is_marker
from app.loading.pydantic_types import is_of_pydantic
from app.plugin import Produces
from app.uploads import File

Schema = dict[str, Any]

Use = Literal["text", "form", "rest", "body", "answer"]
"""Where a value stands: in the path, the query, a header or a field; all of a form, or the rest
beside its other fields; in a body; in an answer."""

FILE: Schema = {"type": "string", "format": "binary"}
"""A file in a form."""

_PLAIN: dict[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    bytes: {"type": "string", "contentMediaType": "application/octet-stream"},
    uuid.UUID: {"type": "string", "format": "uuid"},
    datetime.datetime: {"type": "string", "format": "date-time"},
    datetime.date: {"type": "string", "format": "date"},
    datetime.time: {"type": "string", "format": "time"},
    datetime.timedelta: {"type": "string", "format": "duration"},
    File: FILE,
}
_ARRAYS = (list, set, frozenset, tuple, collections.abc.Sequence, collections.abc.MutableSequence)
_OBJECTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_GENERATION = re.compile(r"_plugins\.[a-z0-9_]+\.g[^.]+\.")


def stable_name(name: str) -> str:
    """Return the qualified name of a plugin's class without the generation that is in it."""
    return _GENERATION.sub("", name)


def is_naive(value: Any) -> bool:
    """Tell whether a value is a time without an offset: RFC 3339, whose format we name, wants one.

    Such a default is left out of a document, which were invalid with it.
    """
    return isinstance(value, datetime.datetime | datetime.time) and value.tzinfo is None


def without_markers(annotation: Any) -> Any:
    """Return an annotation without what says where its value comes from, or how it is sent."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation
    kind, *extras = typing.get_args(annotation)
    kept = [extra for extra in extras if not (is_marker(extra) or isinstance(extra, Produces))]
    return typing.Annotated[(kind, *kept)] if kept else kind


class _UnknownError(Exception):
    """An annotation is none of the plain ones."""


class Schemas:
    """Writes the schemas of one plugin; `finish` fills in what was left open.

    A schema that is returned may be empty until then.
    """

    def __init__(self, prefix: str) -> None:
        """Begin.

        Args:
            prefix: what the names of all components begin with.
        """
        self.prefix = prefix
        """What the names of the plugin's components begin with."""
        self.lacks: list[str] = []
        """What could not be described: a sentence each, once they are finished."""
        self._classes: dict[int, tuple[type, Schema]] = {}
        """The classes that become components, by their id, and their schemas."""
        self._references: list[tuple[Schema, int]] = []
        self._left: list[tuple[Schema, Any, Use]] = []

    def of(self, annotation: Any, use: Use) -> Schema:
        """Return the schema of an annotation."""
        known, referred = dict(self._classes), len(self._references)
        try:
            if use not in ("form", "rest"):
                return self._plain(annotation, use)
        except _UnknownError:  # what was begun for it is not to stay
            self._classes = known
            del self._references[referred:]
        if use == "text":
            annotation = _without_none(annotation)
        schema: Schema = {}
        self._left.append((schema, annotation, use))
        return schema

    def finish(self) -> dict[str, Schema]:
        """Fill in what was left open, and return the components by their names."""
        components: dict[str, Schema] = {}
        if self._left and "pydantic" in sys.modules:
            from app.admin.openapi.pydantic_schemas import write_schemas

            wanted = [(annotation, use) for _, annotation, use in self._left]
            found, components, lacks = write_schemas(wanted, self.prefix)
            self.lacks += dict.fromkeys(lacks)
            for (schema, _, use), written in zip(self._left, found, strict=True):
                if use in ("form", "rest"):
                    written = of_form(written, components, alone=use == "form")
                schema.update(written)
        names = self._names(components.keys())
        for reference, key in self._references:
            reference["$ref"] = f"#/components/schemas/{names[key]}"
        used = {key for _, key in self._references}
        return components | {names[k]: s for k, (_, s) in self._classes.items() if k in used}

    def _names(self, taken: collections.abc.Iterable[str]) -> dict[int, str]:
        """Return the names of the classes that are components: short where that is unmistakable."""
        short = {key: _short(cls) for key, (cls, _) in self._classes.items()}
        names: dict[int, str] = {}
        known = set(taken)
        for key, (cls, _) in self._classes.items():
            name = short[key]
            if list(short.values()).count(name) > 1 or self.prefix + name in known:
                whole = f"{stable_name(module_of(cls) + '.')}{name_of(cls)}"
                name = _NO_NAME.sub("_", whole.replace(".", "__")).strip("_")
            number, one = 1, name
            while self.prefix + one in known:
                number += 1
                one = f"{name}__{number}"
            names[key] = self.prefix + one
            known.add(names[key])
        return names

    def _plain(self, annotation: Any, use: Use) -> Schema:
        if is_constrained(annotation) or holds_itself(annotation):
            raise _UnknownError
        kinds = members(annotation)
        if use == "text" and len(kinds) > 1:  # None is what is left out
            kinds = [kind for kind in kinds if kind is not type(None)]
        written = [self._one(kind, use) for kind in kinds]
        return written[0] if len(written) == 1 else {"anyOf": written}

    def _one(self, kind: Any, use: Use) -> Schema:
        if is_bare(kind) or kind is object:
            return {}
        if kind is None:
            kind = type(None)
        if kind is decimal.Decimal:
            return {"type": "string", "format": "decimal"} if use == "answer" else _number(use)
        if isinstance(kind, collections.abc.Hashable) and kind in _PLAIN:
            return dict(_PLAIN[kind])
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin is Literal:
            return _choice([each for each in arguments if use != "text" or each is not None])
        base = origin or kind
        if base in _OBJECTS:
            return self._object(arguments, use)
        if base in _ARRAYS or (use == "text" and base in MANY):
            return self._array(base, arguments, use)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return _choice([member.value for member in kind])
        if typing.is_typeddict(base) or (use == "answer" and _is_dataclass(base)):
            return self._class(base, use)
        if use == "answer" and isinstance(kind, type) and not is_of_pydantic(kind):
            for scalar in (str, int, float):  # a class of the plugin's own, as Markup
                if issubclass(kind, scalar):
                    return dict(_PLAIN[scalar])
        raise _UnknownError

    def _object(self, arguments: Sequence[Any], use: Use) -> Schema:
        item = self._plain(arguments[1], use) if len(arguments) == 2 else {}
        return {"type": "object", **({"additionalProperties": item} if item else {})}

    def _array(self, base: Any, arguments: Sequence[Any], use: Use) -> Schema:
        unique = {"uniqueItems": True} if base in (set, frozenset) and use == "answer" else {}
        if base is tuple and arguments and arguments[-1] is not ...:
            items = [self._plain(item, use) for item in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "items": False}
        item = self._plain(arguments[0], use) if arguments else {}
        return {"type": "array", "items": item, **unique}

    def _class(self, cls: type, use: Use) -> Schema:
        """Return a reference to the component of a TypedDict or a dataclass."""
        reference: Schema = {}
        if id(cls) not in self._classes:
            schema: Schema = {"type": "object", "title": name_of(cls)}
            self._classes[id(cls)] = (cls, schema)
            try:
                hints = typing.get_type_hints(cls, include_extras=True)
                if _is_dataclass(cls):
                    names = [field.name for field in dataclasses.fields(cls)]
                    required = list(names)
                else:
                    names = list(hints)
                    required = [name for name in names if name in cls.__required_keys__]  # type: ignore[attr-defined]
                schema["properties"] = {
                    name: self._plain(without_qualifiers(hints[name]), use) for name in names
                }
                if required:
                    schema["required"] = required
            except NameError:  # a name that only its module's type checker knows
                schema.pop("properties", None)
        self._references.append((reference, id(cls)))
        return reference


def _without_none(annotation: Any) -> Any:
    """Return an annotation as a text can have it: None is what is left out."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        if any(map(is_json, arguments[1:])):  # where null is a text, as any other
            return annotation
        return typing.Annotated[(_without_none(arguments[0]), *arguments[1:])]
    if origin in (typing.Union, types.UnionType):
        kinds = tuple(_without_none(kind) for kind in arguments if kind is not type(None))
        return typing.Union[kinds]  # noqa: UP007 - made of a list
    if origin in _ARRAYS and arguments:
        return origin[tuple(map(_without_none, arguments))]
    return annotation


def _number(use: Use) -> Schema:
    if use == "body":
        return {"anyOf": [{"type": "number"}, {"type": "string", "format": "decimal"}]}
    return {"type": "number"}


def _choice(values: Sequence[Any]) -> Schema:
    shown = [value.value if isinstance(value, enum.Enum) else value for value in values]
    kinds = {type(value) for value in shown}
    if not kinds <= {str, int, bool, float, type(None)}:
        return {}
    types = [_PLAIN[kind]["type"] for kind in (str, int, bool, float, type(None)) if kind in kinds]
    return {"type": types[0] if len(types) == 1 else types, "enum": shown}


def _is_dataclass(cls: Any) -> bool:
    return dataclasses.is_dataclass(cls) and not hasattr(cls, "__pydantic_serializer__")


def _short(cls: type) -> str:
    name = name_of(cls).rpartition(".")[2]
    return _NO_NAME.sub("_", name) or "Model"
